// The decoder: computes an image from a latent point as the trained network does. Its norms are
// folded into the weights.

// Reads the weights of a page: float16 numbers in base64.
function readWeights(text) {
  const characters = atob(text), bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  const halves = new Uint16Array(bytes.buffer), weights = new Float32Array(halves.length);
  for (let i = 0; i < halves.length; i++) weights[i] = ofHalf(halves[i]);
  return weights;
}

const POWERS = Array.from({ length: 32 }, (_, exponent) => 2 ** (Math.max(exponent, 1) - 25));

function ofHalf(bits) {
  const exponent = (bits >> 10) & 31, mantissa = (bits & 1023) + (exponent ? 1024 : 0);
  return (bits & 0x8000 ? -mantissa : mantissa) * POWERS[exponent];
}

const SELU_SCALE = 1.0507009873554805, SELU_ALPHA = 1.6732632423543772;
const ACTIVATIONS = {
  none() {},
  relu(x) { for (let i = 0; i < x.length; i++) if (x[i] < 0) x[i] = 0; },
  leaky_relu(x, slope) { for (let i = 0; i < x.length; i++) if (x[i] < 0) x[i] *= slope; },
  selu(x) {
    for (let i = 0; i < x.length; i++) x[i] = SELU_SCALE * (x[i] < 0 ? SELU_ALPHA * Math.expm1(x[i]) : x[i]);
  },
  tanh(x) { for (let i = 0; i < x.length; i++) x[i] = Math.tanh(x[i]); },
};

// A decoder of the layers that `network.py` lists; the first is dense, the others are transposed
// convolutions. All of them are matrix products: the channels of a pixel times
// [channels, taps x filters] give what the pixel adds to each of the pixels around it.
class Decoder {
  constructor(layers, weights) {
    this.layers = layers.map((layer) => {
      const dense = layer.kind === "dense";
      const depth = dense ? layer.inputs : layer.channels;
      const columns = dense ? layer.outputs : layer.kernel ** 2 * layer.filters;
      const pixels = dense ? 1 : layer.in_height * layer.in_width;
      const outputs = dense ? columns : layer.out_height * layer.out_width * layer.filters;
      const blocks = Math.ceil(pixels / ROWS), panels = Math.ceil(columns / COLUMNS);
      return { ...layer, dense, depth, columns, pixels, outputs, blocks, panels };
    });
    this.inputs = this.layers[0].depth;
    this.#layOut(weights);
  }

  // Puts the weights into one memory, followed by room for the largest input and product.
  #layOut(weights) {
    let cells = 0;
    const take = (count) => { const start = cells; cells += Math.ceil(count / 4) * 4; return start; };
    for (const layer of this.layers) layer.weights = take(layer.panels * COLUMNS * layer.depth);
    const room = (count) => take(Math.max(...this.layers.map(count)));
    const input = room((layer) => layer.blocks * ROWS * layer.depth);
    const output = room((layer) => layer.blocks * ROWS * layer.panels * COLUMNS);
    this.memory = new WebAssembly.Memory({ initial: Math.ceil((cells * FLOAT) / 65536) });
    this.product = makeProduct(this.memory);
    this.cells = new Float32Array(this.memory.buffer);
    [this.input, this.output] = [input, output];
    let read = 0;
    for (const layer of this.layers) {
      const matrix = weights.subarray(read, (read += layer.depth * layer.columns));
      packPanels(this.cells.subarray(layer.weights), matrix, layer.depth, layer.columns);
      const width = layer.dense ? layer.columns : layer.filters;
      layer.bias = weights.subarray(read, (read += width));
      if (!layer.told) continue;
      layer.gateKernel = weights.subarray(read, (read += layer.told * width));
      layer.gateBias = weights.subarray(read, (read += width));
      layer.shiftKernel = weights.subarray(read, (read += layer.told * width));
    }
    if (read !== weights.length) throw new Error("the weights do not fit the layers");
  }

  // Sets gates and shifts of a model that is told KL weight or latent size: `a` becomes
  // `a * 2 sigmoid(W c + b) + V c`.
  tell(code) {
    for (const layer of this.layers.filter(({ told }) => told)) {
      const times = (kernel, i) => code.reduce((sum, c, t) => sum + c * kernel[t * layer.bias.length + i], 0);
      layer.gate = layer.gateBias.map((bias, i) => 2 / (1 + Math.exp(-bias - times(layer.gateKernel, i))));
      layer.shift = layer.gateBias.map((_, i) => times(layer.shiftKernel, i));
    }
  }

  // Decodes `inputs`, latent components and then labels, to [H, W, C] in [0, 1], row by row.
  decode(inputs) {
    let x = inputs;
    for (const layer of this.layers) {
      const product = this.#multiply(layer, x);
      x = new Float32Array(layer.outputs);
      for (let i = 0; i < x.length; i += layer.bias.length) x.set(layer.bias, i);
      if (layer.dense) for (let i = 0; i < x.length; i++) x[i] += product[i];
      else spread(layer, product, x);
      if (layer.gate) for (let i = 0; i < x.length; i++) {
        const channel = i % layer.gate.length;
        x[i] = x[i] * layer.gate[channel] + layer.shift[channel];
      }
      ACTIVATIONS[layer.activation](x, layer.slope);
    }
    return x.map((logit) => 1 / (1 + Math.exp(-logit)));
  }

  #multiply(layer, x) {
    this.cells.set(x, this.input);
    const addresses = [this.input, layer.weights, this.output].map((cell) => cell * FLOAT);
    this.product(...addresses, layer.blocks, layer.depth, layer.panels);
    return this.cells.subarray(this.output, this.output + layer.pixels * layer.panels * COLUMNS);
  }
}

// Adds the product of every pixel to the pixels around `pixel x stride`.
function spread(layer, product, image) {
  const { in_width, in_height, out_width, out_height, kernel, stride, filters } = layer;
  const row = out_width * filters, line = layer.panels * COLUMNS;
  for (let y = 0, from = 0; y < in_height; y++) {
    for (let x = 0; x < in_width; x++, from += line) {
      const top = y * stride - layer.top, left = x * stride - layer.left;
      const first = Math.max(0, -left), last = Math.min(kernel, out_width - left);
      for (let tap = Math.max(0, -top); tap < Math.min(kernel, out_height - top); tap++) {
        // The taps of one row are neighbours in the product and in the image alike.
        let source = from + (tap * kernel + first) * filters;
        let target = (top + tap) * row + (left + first) * filters;
        for (let n = (last - first) * filters; n > 0; n--) image[target++] += product[source++];
      }
    }
  }
}

// Returns [H, W, C] in [0, 1] as the bytes of a canvas, rounded as by `experiments.sample`.
function pixelsOf(image, channels) {
  const pixels = new Uint8ClampedArray((image.length / channels) * 4).fill(255);
  for (let i = 0; i < pixels.length / 4; i++) {
    for (let c = 0; c < 3; c++) pixels[4 * i + c] = Math.round(255 * image[i * channels + (c % channels)]);
  }
  return pixels;
}
