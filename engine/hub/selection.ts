/** Which files of a repository inference needs: not its PyTorch weights, pictures, nor other precisions. */

export const COMPONENTS = [
  'text_encoder',
  'text_encoder_2',
  'text_encoder_3',
  'unet',
  'transformer',
  'vae_decoder',
  'vae_encoder',
];

const ROOT_FILES = ['model_index.json', 'vocabulary.json'];
const TOKENIZER_FILES = [
  'vocab.json',
  'merges.txt',
  'tokenizer.json',
  'special_tokens_map.json',
  'tokenizer_config.json',
  'added_tokens.json',
];
/** The names that exporters give to weights outside of model.onnx; others are found in the model itself. */
const MODEL_FILE = /^(config\.json|model\.onnx|model\.onnx[._]data|weights\.pb)$/;

/** @param paths all files of the repository */
export function selectFiles(paths: string[]): string[] {
  return paths.filter((path) => {
    const [folder, name, ...deeper] = path.split('/');
    if (name === undefined) return ROOT_FILES.includes(folder);
    if (deeper.length > 0) return false;
    if (/^tokenizer(_[23])?$/.test(folder)) return TOKENIZER_FILES.includes(name);
    if (folder === 'scheduler') return name === 'scheduler_config.json';
    return COMPONENTS.includes(folder) && MODEL_FILE.test(name);
  });
}

/**
 * What is wrong with a repository that can't work, before anything of it is downloaded.
 * @returns the rest of a sentence that begins with "The repository …", or undefined
 */
export function missingFiles(selected: string[], all: string[]): string | undefined {
  if (all.some((path) => /^(transformer|t5|clip|vae)\.opt\//.test(path)))
    return (
      'holds ONNX files that were made for TensorRT, which ONNX Runtime does not run. ' +
      'Take a repository that was exported with optimum, or export the model: ' +
      'optimum-cli export onnx --model <model> <folder>'
    );
  const has = (folder: string): boolean => all.some((path) => path.startsWith(`${folder}/`));
  // A refiner has the second encoder alone, and Stable Diffusion 3 works without the third.
  const suffixes = ['', '_2', '_3'].filter(
    (suffix) => has(`text_encoder${suffix}`) || (!suffix && !has('text_encoder_2')),
  );
  const denoiser = has('transformer') && !has('unet') ? 'transformer' : 'unet';
  const needed = [
    ...suffixes.map((suffix) => `text_encoder${suffix}/model.onnx`),
    `${denoiser}/model.onnx`,
    'vae_decoder/model.onnx',
    'scheduler/scheduler_config.json',
    ...suffixes.flatMap((suffix) => tokenizerFiles(`tokenizer${suffix}`, selected, all)),
  ];
  const missing = needed.filter((path) => !selected.includes(path));
  if (missing.length === 0) return undefined;
  const list = `has no ${missing.join(', ')}`;
  if (!all.some((path) => path.endsWith('.onnx')) && all.some((path) => /\.(safetensors|bin|ckpt)$/.test(path))) {
    return (
      `${list}: it holds weights for PyTorch. Take a repository or a revision with an ONNX export, or ` +
      'convert it: optimum-cli export onnx --model <repository> <folder>'
    );
  }
  return (
    `${list}. A checkpoint needs text_encoder, unet (or transformer) and vae_decoder, each with its ` +
    'model.onnx, a tokenizer for each text encoder and a scheduler; perhaps another revision has them'
  );
}

/** CLIP's tokenizer is made of two files, where there is no tokenizer.json; T5's (by its spiece.model) is not. */
function tokenizerFiles(folder: string, selected: string[], all: string[]): string[] {
  if (selected.includes(`${folder}/tokenizer.json`)) return [];
  if (all.includes(`${folder}/spiece.model`)) return [`${folder}/tokenizer.json`];
  return [`${folder}/vocab.json`, `${folder}/merges.txt`];
}
