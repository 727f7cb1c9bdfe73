/** Reads NumPy's .npy files: the format that the golden arrays are kept in. */
import fs from 'node:fs';

const READERS = {
  '<f4': { bytes: 4, make: (n: number) => new Float32Array(n), read: (b: Buffer, at: number) => b.readFloatLE(at) },
  '<f8': { bytes: 8, make: (n: number) => new Float64Array(n), read: (b: Buffer, at: number) => b.readDoubleLE(at) },
  '<i4': { bytes: 4, make: (n: number) => new Int32Array(n), read: (b: Buffer, at: number) => b.readInt32LE(at) },
  // Token ids and picks are far below 2^53, so plain numbers hold them.
  '<i8': {
    bytes: 8,
    make: (n: number) => new Float64Array(n),
    read: (b: Buffer, at: number) => Number(b.readBigInt64LE(at)),
  },
  '|u1': { bytes: 1, make: (n: number) => new Uint8Array(n), read: (b: Buffer, at: number) => b[at] },
  '|b1': { bytes: 1, make: (n: number) => new Uint8Array(n), read: (b: Buffer, at: number) => b[at] },
} as const;

export type NpyDtype = keyof typeof READERS;

export interface Npy {
  dtype: NpyDtype;
  dims: number[];
  /** Row-major. <i8 comes as a Float64Array of whole numbers, |b1 as 0 and 1. */
  data: Float32Array | Float64Array | Int32Array | Uint8Array;
}

/**
 * Reads one array, C order, little-endian.
 * @throws Error when the file is no .npy file, or of a dtype or order that isn't read here
 */
export function readNpy(file: string): Npy {
  const bytes = fs.readFileSync(file);
  if (bytes.subarray(0, 6).toString('latin1') !== '\x93NUMPY') throw new Error(`${file} is no .npy file`);
  const wide = bytes[6] >= 2; // from format 2.0 on the header's length has four bytes
  const headerLength = wide ? bytes.readUInt32LE(8) : bytes.readUInt16LE(8);
  const start = (wide ? 12 : 10) + headerLength;
  const header = bytes.subarray(wide ? 12 : 10, start).toString('latin1');

  const dtype = /'descr':\s*'([^']*)'/.exec(header)?.[1] as NpyDtype;
  const reader = READERS[dtype];
  if (!reader) throw new Error(`${file} holds ${dtype}; this reader knows ${Object.keys(READERS).join(', ')}`);
  if (!/'fortran_order':\s*False/.test(header)) throw new Error(`${file} is in Fortran order`);
  const shape = /'shape':\s*\(([^)]*)\)/.exec(header)?.[1] ?? '';
  const dims = shape
    .split(',')
    .filter((part) => part.trim() !== '')
    .map(Number);

  const size = dims.reduce((product, d) => product * d, 1);
  if (bytes.length - start !== size * reader.bytes) throw new Error(`${file} is cut short`);
  const data = reader.make(size);
  for (let i = 0; i < size; i++) data[i] = reader.read(bytes, start + i * reader.bytes);
  return { dtype, dims, data };
}
