// Points of the latent space: moved along directions, and on paths between two points.

const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
const norm = (a) => Math.sqrt(dot(a, a));

// a + amount b, in float32.
const plus = (a, b, amount = 1) => a.map((value, i) => value + amount * b[i]);

// Returns the point at a share t of the straight line between two points.
function straight(from, to, t) {
  return t === 1 ? to.slice() : from.map((value, i) => (1 - t) * value + t * to[i]);
}

// Returns the point at a share t of the great circle between two directions, at a radius that changes
// evenly. Unlike the straight line, it stays where a Gaussian has its mass (White, "Sampling
// generative networks", 2016). If there is no such circle, it is the point on the straight line.
function spherical(from, to, t) {
  const [a, b] = [norm(from), norm(to)];
  if (t === 0 || t === 1 || a === 0 || b === 0) return straight(from, to, t);
  const cosine = Math.min(1, Math.max(-1, dot(from, to) / (a * b)));
  const angle = Math.acos(cosine), sine = Math.sin(angle);
  if (sine < 1e-6) return straight(from, to, t);
  const radius = (1 - t) * a + t * b;
  const [first, second] = [Math.sin((1 - t) * angle) / sine, Math.sin(t * angle) / sine];
  return from.map((value, i) => radius * ((first * value) / a + (second * to[i]) / b));
}
