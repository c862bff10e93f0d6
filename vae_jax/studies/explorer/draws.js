// Points of N(0, I) as JAX draws them: (seed, index) gives the bits that `experiments.sample` uses.
//
// JAX makes random bits with Threefry (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
// 2011), a block cipher that encrypts counters. A point's key is the seed's key encrypting the
// point's index; component j of the point comes from that key encrypting j.

const KEY_PARITY = 0x1bd11bda;
const ROTATIONS = [[13, 15, 26, 6], [17, 29, 16, 24]];

// Encrypts two 32-bit words with a key of two, in 20 rounds.
function threefry([k0, k1], x0, x1) {
  const key = [k0, k1, k0 ^ k1 ^ KEY_PARITY];
  x0 = (x0 + key[0]) | 0;
  x1 = (x1 + key[1]) | 0;
  for (let group = 0; group < 5; group++) {
    for (const turn of ROTATIONS[group % 2]) {
      x0 = (x0 + x1) | 0;
      x1 = ((x1 << turn) | (x1 >>> (32 - turn))) ^ x0;
    }
    x0 = (x0 + key[(group + 1) % 3]) | 0;
    x1 = (x1 + key[(group + 2) % 3] + group + 1) | 0;
  }
  return [x0, x1];
}

// From here on every number is a float32. Where XLA's program for a CPU multiplies and adds, it does
// so with one rounding; `fma` does the same. The product of two float32 is exact in a float64, so
// only the sum may be rounded twice, which matters where the float64 lies halfway between two float32.
function fma(a, b, c) {
  const product = a * b, sum = product + c, rounded = Math.fround(sum), other = 2 * sum - rounded;
  if (sum === rounded || Math.fround(other) !== other) return rounded;
  const back = sum - product, lost = (product - (sum - back)) + (c - back);
  if (lost === 0) return rounded;
  return lost > 0 ? Math.max(rounded, other) : Math.min(rounded, other);
}

const float32 = new Float32Array(1), word32 = new Uint32Array(float32.buffer);
const floats = (...words) => words.map((word) => { word32[0] = word; return float32[0]; });
const f = Math.fround;

// Polynomials of XLA's log1p and erf_inv, as the bits of their coefficients, highest power first.
const [LOG_FIRST, LOG_SECOND, LOG_THIRD] = [
  floats(0x3d9021bb, 0xbdebd1b8, 0x3def251a),
  floats(0xbdfe5d4f, 0x3e11e9bf, 0xbe2aae50),
  floats(0x3e4cceac, 0xbe7ffffc, 0x3eaaaaaa),
];
const [LN2_LOW, LN2_HIGH, HALF_ROOT, SMALL] = floats(0xb95e8083, 0x3f318000, 0x3f3504f3, 0x3ed413cd);
const ABOVE = [f(4.527e-5),
  ...floats(0x3eff40c5, 0x40d284fa, 0x41ef4b9c, 0x4273cc76, 0x426473ad, 0x41a05101)];
const BELOW = [1,
  ...floats(0x417101ad, 0x42a6185b, 0x435dc32d, 0x439a8ca3, 0x43586d8a, 0x42707982)];
const CENTRE = floats(0x32f16588, 0x34b84b36, 0xb66c7357, 0xb6935ac1, 0x396532db,
  0xbaa45408, 0xbb88e4ef, 0x3e7c8f63, 0x3fc02e2f);
const TAIL = floats(0xb951f09b, 0x38d3b56b, 0x3ab0dc72, 0xbb70bde7, 0x3bbc127b,
  0xbbf9c5d7, 0x3c1aa57e, 0x3f8036db, 0x40354f7e);
const [ROOT_TWO, ALMOST_MINUS_ONE] = floats(0x3fb504f3, 0xbf7fffff);

const polynomial = (coefficients, x) => coefficients.reduce((sum, next) => fma(sum, x, next));

// log(1 + x) for -1 < x <= 0: a rational function near 0, else exponent and mantissa of 1 + x.
function log1p(x) {
  if (Math.abs(x) < SMALL) {
    const square = f(x * x), ratio = f(polynomial(ABOVE, x) / polynomial(BELOW, x));
    return f(x + fma(square, -0.5, f(f(x * square) * ratio)));
  }
  float32[0] = f(x + 1);
  let exponent = (word32[0] >>> 23) - 126;
  word32[0] = (word32[0] & 0x007fffff) | 0x3f000000;
  let m = float32[0]; // in [1/2, 1)
  if (m < HALF_ROOT) {
    exponent -= 1;
    m = f(f(m - 1) + m);
  } else {
    m = f(m - 1);
  }
  const square = f(m * m), cube = f(square * m);
  let sum = fma(polynomial(LOG_FIRST, m), cube, polynomial(LOG_SECOND, m));
  sum = fma(sum, cube, polynomial(LOG_THIRD, m));
  sum = fma(sum, cube, f(exponent * LN2_LOW));
  return fma(exponent, LN2_HIGH, f(fma(square, -0.5, m) + sum));
}

// Turns 32 random bits into a standard normal number, sqrt(2) erf_inv(u) with u uniform in (-1, 1);
// erf_inv is the approximation by Giles ("Approximating the erfinv function", 2010).
function normalOf(bits) {
  const u = Math.max(fma((bits >>> 9) * 2 ** -23, 2, ALMOST_MINUS_ONE), ALMOST_MINUS_ONE);
  const w = -log1p(f(u * -u));
  const p = w < 5 ? polynomial(CENTRE, f(w - 2.5)) : polynomial(TAIL, f(f(Math.sqrt(w)) - 3));
  return f(f(p * u) * ROOT_TWO);
}

const pointKey = (seed, index) => threefry([0, seed | 0], 0, index | 0);
const split = (key, i) => threefry(key, 0, i);

// Returns word j of the random bits of a key.
function bitsOf(key, j) {
  const [x0, x1] = threefry(key, 0, j);
  return x0 ^ x1;
}

const noiseOf = (key, zDim) => Float32Array.from({ length: zDim }, (_, j) => normalOf(bitsOf(key, j)));

// Returns point `index` of a seed, a Float32Array of Z components that follows N(0, I).
const priorPoint = (seed, index, zDim) => noiseOf(pointKey(seed, index), zDim);
