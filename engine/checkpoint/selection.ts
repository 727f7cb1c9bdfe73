/** Which files of a repository inference needs: not its PyTorch weights, pictures, nor other precisions. */

export const COMPONENTS = ['text_encoder', 'unet', 'vae_decoder', 'vae_encoder'];

const ROOT_FILES = ['model_index.json', 'vocabulary.json'];
const TOKENIZER_FILES = ['vocab.json', 'merges.txt', 'tokenizer.json', 'special_tokens_map.json', 'tokenizer_config.json'];
/** The names that exporters give to weights outside of model.onnx; others are found in the model itself. */
const MODEL_FILE = /^(config\.json|model\.onnx|model\.onnx[._]data|weights\.pb)$/;

/** @param paths all files of the repository */
export function selectFiles(paths: string[]): string[] {
  return paths.filter((path) => {
    const [folder, name, ...deeper] = path.split('/');
    if (name === undefined) return ROOT_FILES.includes(folder);
    if (deeper.length > 0) return false;
    if (folder === 'tokenizer') return TOKENIZER_FILES.includes(name);
    if (folder === 'scheduler') return name === 'scheduler_config.json';
    return COMPONENTS.includes(folder) && MODEL_FILE.test(name);
  });
}

/**
 * What is wrong with a repository that can't work, before anything of it is downloaded.
 * @returns the rest of a sentence that begins with "The repository …", or undefined
 */
export function missingFiles(selected: string[], all: string[]): string | undefined {
  if (all.some((path) => path.startsWith('text_encoder_2/'))) {
    return 'holds a Stable Diffusion XL checkpoint (it has text_encoder_2), which needs two text encoders; supported are Stable Diffusion 1 and 2, their distillations and LCMs';
  }
  const tokenizer = selected.includes('tokenizer/tokenizer.json') ? [] : ['tokenizer/vocab.json', 'tokenizer/merges.txt'];
  const needed = ['text_encoder/model.onnx', 'unet/model.onnx', 'vae_decoder/model.onnx', 'scheduler/scheduler_config.json', ...tokenizer];
  const missing = needed.filter((path) => !selected.includes(path));
  if (missing.length === 0) return undefined;
  const list = `has no ${missing.join(', ')}`;
  if (!all.some((path) => path.endsWith('.onnx')) && all.some((path) => /\.(safetensors|bin|ckpt)$/.test(path))) {
    return `${list}: it holds weights for PyTorch. Take a repository or a revision with an ONNX export, or convert it: optimum-cli export onnx --model <repository> <folder>`;
  }
  return `${list}. A checkpoint needs text_encoder, unet and vae_decoder, each with its model.onnx, a tokenizer and a scheduler; perhaps another revision has them`;
}
