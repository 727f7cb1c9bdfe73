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
    const w = Math.fround(guidanceScale - 1) * 1000;
    for (let i = 0; i < half; i++) {
      const angle = w * Math.exp((-Math.log(10000) * i) / (half - 1));
      embedding[row * width + i] = Math.sin(angle);
      embedding[row * width + half + i] = Math.cos(angle);
    }
  });
  return embedding;
}
