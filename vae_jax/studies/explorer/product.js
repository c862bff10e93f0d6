// Matrix products, which take nearly all of the time of the decoder.
//
// They run in WebAssembly, four numbers at a time. `assemble` turns the text of the program below
// into the bytes of a module when the page opens, so that the page contains no compiled code. In a
// browser without these instructions, plain JavaScript computes the same sums more slowly.
//
// product(a, b, c, blocks, depth, panels): C = A B in float32.
//   A  [4 blocks, depth], row by row.
//   B  [depth, 8 panels], cut into panels of 8 columns: [panels, depth, 8].
//   C  [4 blocks, 8 panels], row by row.
// All are addresses in bytes. A tile of 4 rows and 8 columns stays in 8 registers for its whole sum.

const ROWS = 4, COLUMNS = 8, FLOAT = 4, PANEL = COLUMNS * FLOAT;

const PARAMETERS = ["a", "b", "c", "blocks", "depth", "panels"];
const INTEGERS = ["row", "left", "k", "tile", "weights", "depth_bytes", "line_bytes"];
const VECTORS = ["w0", "w1", "x", ...Array.from({ length: 8 }, (_, i) => `sum${i}`)];

// One line of text for each of the tile's rows or sums.
const perRow = (line) => [0, 1, 2, 3].map(line).join("\n");

const PROGRAM = `
  local.get $depth   i32.const ${FLOAT}   i32.mul   local.set $depth_bytes
  local.get $panels  i32.const ${PANEL}   i32.mul   local.set $line_bytes
  loop                                      ;; over panels
    local.get $a       local.set $row
    local.get $c       local.set $tile
    local.get $blocks  local.set $left
    loop                                    ;; over blocks of rows
      ${perRow((r) => `v128.zero local.set $sum${2 * r}  v128.zero local.set $sum${2 * r + 1}`)}
      local.get $b      local.set $weights
      local.get $depth  local.set $k
      loop                                  ;; over the depth
        local.get $weights  v128.load 0     local.set $w0
        local.get $weights  v128.load 16    local.set $w1
        ${perRow((r) => `
          local.get $row  ${"local.get $depth_bytes i32.add ".repeat(r)}
          v128.load32_splat 0  local.set $x
          local.get $x  local.get $w0  f32x4.mul
          local.get $sum${2 * r}      f32x4.add  local.set $sum${2 * r}
          local.get $x  local.get $w1  f32x4.mul
          local.get $sum${2 * r + 1}  f32x4.add  local.set $sum${2 * r + 1}`)}
        local.get $row      i32.const ${FLOAT}  i32.add  local.set $row
        local.get $weights  i32.const ${PANEL}  i32.add  local.set $weights
        local.get $k        i32.const -1        i32.add  local.tee $k
      br_if 0 end
      ${perRow((r) => `
        local.get $tile  local.get $sum${2 * r}      v128.store 0
        local.get $tile  local.get $sum${2 * r + 1}  v128.store 16
        local.get $tile  local.get $line_bytes  i32.add  local.set $tile`)}
      ;; $row has moved to the end of its own row: three more lie in this block.
      local.get $row   ${"local.get $depth_bytes i32.add ".repeat(ROWS - 1)}  local.set $row
      local.get $left  i32.const -1  i32.add  local.tee $left
    br_if 0 end
    local.get $weights local.set $b         ;; the next panel begins where this one ends
    local.get $c       i32.const ${PANEL}  i32.add  local.set $c
    local.get $panels  i32.const -1        i32.add  local.tee $panels
  br_if 0 end
`;

// Codes of https://webassembly.github.io/spec/core/binary/instructions.html
const OPCODES = {
  "loop": [0x03, 0x40], "br_if": [0x0d], "end": [0x0b],
  "local.get": [0x20], "local.set": [0x21], "local.tee": [0x22],
  "i32.const": [0x41], "i32.add": [0x6a], "i32.mul": [0x6c],
  "v128.load": [0xfd, 0x00], "v128.load32_splat": [0xfd, 0x09], "v128.store": [0xfd, 0x0b],
  "v128.zero": [0xfd, 0x0c, ...Array(16).fill(0)],
  "f32x4.add": [0xfd, 0xe4, 0x01], "f32x4.mul": [0xfd, 0xe6, 0x01],
};
const I32 = 0x7f, V128 = 0x7b;

// Encodes a signed number in LEB128; the unsigned numbers of the program are too small to differ.
function leb128(value) {
  const bytes = [];
  for (;;) {
    const byte = value & 0x7f;
    value >>= 7;
    const done = (value === 0 && !(byte & 0x40)) || (value === -1 && byte & 0x40);
    bytes.push(done ? byte : byte | 0x80);
    if (done) return bytes;
  }
}

// Returns the bytes of a module with one function, exported as `product`, and an imported memory.
function assemble() {
  const names = [...PARAMETERS, ...INTEGERS, ...VECTORS].map((name) => `$${name}`);
  const code = [];
  const words = PROGRAM.replace(/;;.*/g, "").trim().split(/\s+/);
  for (let i = 0; i < words.length; i++) {
    const word = words[i];
    code.push(...OPCODES[word]);
    if (word.startsWith("local.")) code.push(names.indexOf(words[++i]));
    else if (word.startsWith("v128.") && word !== "v128.zero") code.push(2, Number(words[++i]));
    else if (word === "i32.const" || word === "br_if") code.push(...leb128(Number(words[++i])));
  }
  const locals = [2, INTEGERS.length, I32, VECTORS.length, V128];
  const body = [...locals, ...code, OPCODES.end[0]];
  const text = (string) => [string.length, ...new TextEncoder().encode(string)];
  const size = (bytes) => [(bytes.length & 0x7f) | 0x80, bytes.length >> 7, ...bytes];
  const sections = [
    [1, [1, 0x60, PARAMETERS.length, ...PARAMETERS.map(() => I32), 0]], // the type of the function
    [2, [1, ...text("page"), ...text("memory"), 2, 0, 1]], // the memory
    [3, [1, 0]], // one function of that type
    [7, [1, ...text("product"), 0, 0]], // its name
    [10, [1, ...size(body)]],
  ];
  const magic = [0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
  return Uint8Array.from([...magic, ...sections.flatMap(([id, bytes]) => [id, ...size(bytes)])]);
}

// The same product in plain JavaScript.
function plainProduct(memory) {
  const cells = new Float32Array(memory.buffer);
  return (a, b, c, blocks, depth, panels) => {
    [a, b, c] = [a / FLOAT, b / FLOAT, c / FLOAT];
    const width = panels * COLUMNS, sums = new Float32Array(width);
    for (let row = 0; row < blocks * ROWS; row++) {
      sums.fill(0);
      for (let k = 0; k < depth; k++) {
        const x = cells[a + row * depth + k];
        for (let panel = 0; panel < panels; panel++) {
          const from = b + (panel * depth + k) * COLUMNS, to = panel * COLUMNS;
          for (let i = 0; i < COLUMNS; i++) sums[to + i] += x * cells[from + i];
        }
      }
      cells.set(sums, c + row * width);
    }
  };
}

// Returns the fastest product that this browser supports, in `memory`.
function makeProduct(memory) {
  try {
    const module = new WebAssembly.Module(assemble());
    return new WebAssembly.Instance(module, { page: { memory } }).exports.product;
  } catch {
    return plainProduct(memory);
  }
}

// Packs a matrix [depth, columns], row by row, into the panels of B; missing columns stay 0.
function packPanels(target, matrix, depth, columns) {
  for (let panel = 0, to = 0; panel * COLUMNS < columns; panel++) {
    const width = Math.min(COLUMNS, columns - panel * COLUMNS);
    for (let k = 0; k < depth; k++, to += COLUMNS) {
      const from = k * columns + panel * COLUMNS;
      for (let i = 0; i < width; i++) target[to + i] = matrix[from + i];
    }
  }
}
