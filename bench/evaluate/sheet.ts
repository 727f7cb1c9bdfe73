/** Contact sheets: a row a layout, a column a strategy. */
import sharp, { type OverlayOptions } from 'sharp';
import type { Picture } from './geometry';
import type { Layout } from './layouts';
import type { Seen, SeenRegion } from './report';

export interface SheetColumn {
  title: string;
  /** By the layout's index; the ones that are missing stay blank. */
  pictures: Map<number, Picture>;
  /** By the layout's index; without it no boxes are drawn. */
  seen?: Seen;
}

export interface SheetOptions {
  /** Side of a picture on the sheet, in pixels. */
  tile: number;
  /** 256 colours: a third of the file's size. */
  palette?: boolean;
}

const [RECOGNISED, OTHER] = ['#00ff40', '#ff2020'];
const [HEAD, SIDE, GAP] = [20, 150, 4];

/** PNG bytes. Boxes are green where the judge recognises the object, dashed and red where it sees something else. */
export async function makeSheet(
  layouts: Layout[],
  columns: SheetColumn[],
  { tile, palette = false }: SheetOptions,
): Promise<Buffer> {
  const step = tile + GAP;
  const [width, height] = [SIDE + columns.length * step, HEAD + layouts.length * step];
  const tiles: OverlayOptions[] = [];
  const marks: string[] = [];
  for (const [column, { title, pictures, seen }] of columns.entries()) {
    const left = SIDE + column * step;
    marks.push(text(title, left, HEAD - 6, 12));
    for (const [row, layout] of layouts.entries()) {
      const top = HEAD + row * step;
      const picture = pictures.get(layout.index);
      if (!picture) continue;
      const [rows, across] = picture.dims;
      const input = await sharp(picture.data, { raw: { width: across, height: rows, channels: 3 } })
        .resize(tile, tile)
        .png()
        .toBuffer();
      tiles.push({ input, left, top });
      seen
        ?.get(layout.index)
        ?.regions.forEach((region, i) => marks.push(outline(layout.objects[i].box, region, left, top, tile)));
    }
  }
  for (const [row, layout] of layouts.entries()) {
    const lines = [layout.scene, ...layout.objects.map(({ phrase }) => `· ${phrase}`)];
    lines.forEach((line, i) => marks.push(text(line, 4, HEAD + row * step + 14 + 15 * i, 11)));
  }
  const drawing = Buffer.from(
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}">${marks.join('')}</svg>`,
  );
  const blank = sharp({ create: { width, height, channels: 3, background: 'white' } });
  return blank
    .composite([...tiles, { input: drawing, left: 0, top: 0 }])
    .png({ palette, effort: 10 })
    .toBuffer();
}

/** PNG bytes, with 256 colours, of sheets of the same size side by side. */
export async function joinSheets(sheets: Buffer[]): Promise<Buffer> {
  return sharp(sheets, { join: { across: sheets.length, shim: 2 * GAP, background: 'white' } })
    .png({ palette: true, effort: 10 })
    .toBuffer();
}

function text(words: string, x: number, y: number, size: number): string {
  return `<text x="${x}" y="${y}" font-family="sans-serif" font-size="${size}">${words}</text>`;
}

function outline(
  [x, y, width, height]: readonly number[],
  { asked, seen }: SeenRegion,
  left: number,
  top: number,
  tile: number,
): string {
  const place = `x="${left + x * tile + 0.5}" y="${top + y * tile + 0.5}" width="${width * tile - 1}" height="${height * tile - 1}"`;
  const line = asked === seen ? `stroke="${RECOGNISED}"` : `stroke="${OTHER}" stroke-dasharray="4 3"`;
  return `<rect ${place} fill="none" stroke-width="1.5" ${line}/>`;
}
