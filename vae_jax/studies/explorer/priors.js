// Points of priors that were fitted to codes, equal to those of `experiments.sample --prior` up to
// rounding: sums are float64 here, and weights of networks float16.

// A point is the mean of the codes, which may depend on labels, plus a draw about it. Dimensions that
// the pair of a told model leaves out, which the prior does not have, follow N(0, I).
function fittedPoint(prior, seed, index, labels, zDim) {
  const point = priorPoint(seed, index, zDim), [mean, ...perLabel] = prior.location;
  AROUND_MEAN[prior.kind](prior, pointKey(seed, index)).forEach((value, i) => {
    point[i] = labels.reduce((sum, label, k) => sum + label * perLabel[k][i], mean[i] + value);
  });
  return point;
}

const AROUND_MEAN = {
  gaussian: ({ components: [gaussian] }, key) => coloured(gaussian, noiseOf(key, gaussian.mean.length)),

  mixture({ components }, key) {
    const chosen = chooseComponent(components, split(key, 0));
    return coloured(chosen, noiseOf(split(key, 1), chosen.mean.length));
  },

  // A second code, then a point given that code.
  two_stage({ components: [white], network, deviation }, key) {
    const [code, noise] = [0, 1].map((i) => noiseOf(split(key, i), white.mean.length));
    return coloured(white, plus(networkOf(network)(code), noise, deviation));
  },

  // Follows a velocity from noise, by the Runge-Kutta method of fourth order.
  flow({ components: [white], network, frequencies, steps }, key) {
    const learned = networkOf(network), step = 1 / steps;
    const angles = (time) => Array.from({ length: frequencies }, (_, k) => Math.PI * (k + 1) * time);
    const velocity = (x, time) => {
      const found = learned([...x, ...angles(time).map(Math.cos), ...angles(time).map(Math.sin)]);
      return plus(found, x, (2 * time - 1) / (time ** 2 + (1 - time) ** 2));
    };
    let x = Float64Array.from(noiseOf(key, white.mean.length));
    for (let i = 0; i < steps; i++) {
      const time = i * step;
      const first = velocity(x, time);
      const second = velocity(plus(x, first, step / 2), time + step / 2);
      const third = velocity(plus(x, second, step / 2), time + step / 2);
      const fourth = velocity(plus(x, third, step), time + step);
      x = x.map((value, j) => value + (step / 6) * (first[j] + 2 * (second[j] + third[j]) + fourth[j]));
    }
    return coloured(white, x);
  },
};

// Turns noise into a point of a Gaussian: its mean plus the rows of a triangle times the noise.
const coloured = ({ mean, cholesky }, noise) =>
  mean.map((value, i) => cholesky[i].reduce((sum, factor, j) => sum + factor * noise[j], value));

// Draws a component by its weight as JAX does: that of the largest log weight plus Gumbel noise.
function chooseComponent(components, key) {
  const scores = components.map(({ log_weight }, k) => {
    const uniform = Math.max((bitsOf(key, k) >>> 9) * 2 ** -23, 2 ** -126);
    return log_weight - Math.log(-Math.log(uniform));
  });
  return components[scores.indexOf(Math.max(...scores))];
}

// Returns the function of a residual network, which is made once: a dense layer, residual blocks of
// a norm, SiLU and a dense layer, and a last dense layer after another SiLU.
function networkOf(network) {
  network.apply ??= makeNetwork(network);
  return network.apply;
}

function makeNetwork({ inputs, width, blocks, outputs, weights }) {
  const all = readWeights(weights);
  let read = 0;
  const take = (count) => all.subarray(read, (read += count));
  const dense = (from, to) => ({ kernel: take(from * to), bias: take(to) });
  const first = dense(inputs, width);
  const middle = Array.from({ length: blocks }, () => [take(width), take(width), dense(width, width)]);
  const last = dense(width, outputs);
  return (x) => {
    let hidden = throughDense(first, x);
    for (const [scale, shift, layer] of middle) {
      hidden = plus(hidden, throughDense(layer, layerNorm(hidden, scale, shift).map(silu)));
    }
    return throughDense(last, hidden.map(silu));
  };
}

function throughDense({ kernel, bias }, x) {
  const sums = Float64Array.from(bias), width = sums.length;
  for (let i = 0, from = 0; i < x.length; i++, from += width) {
    const value = x[i];
    for (let j = 0; j < width; j++) sums[j] += value * kernel[from + j];
  }
  return sums;
}

function layerNorm(x, scale, shift) {
  const mean = x.reduce((sum, value) => sum + value, 0) / x.length;
  const variance = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length;
  const factor = 1 / Math.sqrt(variance + 1e-6);
  return x.map((value, i) => (value - mean) * factor * scale[i] + shift[i]);
}

const silu = (x) => x / (1 + Math.exp(-x));
