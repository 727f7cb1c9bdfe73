/**
 * The guidance scale as an input of a distilled UNet: a sine/cosine embedding of 1000·(g − 1), as latent
 * consistency models take it (Luo et al. 2023; diffusers, get_guidance_scale_embedding).
 * @param width elements per row, 256 for the public LCMs
 * @returns [rows, width]
 */
export function guidanceEmbedding(guidanceScales: number[], width: number): Float32Array {
  const half = Math.floor(width / 2);
  const embedding = new Float32Array(guidanceScales.length * width);
  guidanceScales.forEach((guidanceScale, row) => {
    const w = 1000 * (guidanceScale - 1);
    for (let i = 0; i < half; i++) {
      // In single precision as PyTorch computes it: at angles of thousands its rounding shows.
      const frequency = Math.fround(Math.exp(Math.fround(i * Math.fround(-Math.log(10000) / (half - 1)))));
      const angle = Math.fround(w * frequency);
      embedding[row * width + i] = Math.sin(angle);
      embedding[row * width + half + i] = Math.cos(angle);
    }
  });
  return embedding;
}
