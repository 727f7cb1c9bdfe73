// Renders the emoji artwork named in a list to square RGBA PNG files.
//
//   node sprites.mjs LIST.json OUT_DIR [SIZE]
//
// LIST.json maps a file name (without .png) to [icon set, icon name], for example
// {"sofa.cartoon": ["fluent-emoji-flat", "couch-and-lamp"]}.
import { mkdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import sharp from 'sharp'

const require = createRequire(import.meta.url)
const [listFile, outDir, size = '384'] = process.argv.slice(2)
const list = JSON.parse(readFileSync(listFile, 'utf8'))
const sets = {}
mkdirSync(outDir, { recursive: true })

for (const [file, [setName, iconName]] of Object.entries(list)) {
  const set = (sets[setName] ??= require(`@iconify-json/${setName}/icons.json`))
  const icon = set.icons[iconName] ?? set.icons[set.aliases?.[iconName]?.parent]
  if (!icon) throw new Error(`${setName} has no icon named ${iconName}`)
  const width = icon.width ?? set.width ?? 16
  const height = icon.height ?? set.height ?? 16
  const svg =
    `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" ` +
    `width="${size}" height="${size}" viewBox="0 0 ${width} ${height}">${icon.body}</svg>`
  await sharp(Buffer.from(svg)).png().toFile(join(outDir, `${file}.png`))
}
console.log(`${Object.keys(list).length} sprites in ${outDir}`)
