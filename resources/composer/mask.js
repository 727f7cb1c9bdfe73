// @ts-check
/* global module */
/** A mask that is painted, or taken from a picture: its opacity is the mask. */
(function () {
  'use strict';

  /** Pixels of a mask's longer side: several for each latent cell of the canvases that are drawn on. */
  const SIDE = 256;

  class Mask {
    /** @param {number} width @param {number} height of the canvas, in any unit */
    constructor(width, height) {
      const scale = SIDE / Math.max(width, height);
      this.canvas = document.createElement('canvas');
      this.canvas.width = Math.max(1, Math.round(width * scale));
      this.canvas.height = Math.max(1, Math.round(height * scale));
      this.context = /** @type {CanvasRenderingContext2D} */ (
        this.canvas.getContext('2d', { willReadFrequently: true })
      );
    }

    /**
     * @param {[number, number]} from @param {[number, number]} to shares of the canvas
     * @param {number} size of the brush, as a share of the shorter side @param {boolean} erase
     */
    stroke([ax, ay], [bx, by], size, erase) {
      const { width, height } = this.canvas;
      const { context } = this;
      context.globalCompositeOperation = erase ? 'destination-out' : 'source-over';
      context.strokeStyle = '#fff';
      context.lineCap = 'round';
      context.lineJoin = 'round';
      context.lineWidth = Math.max(1, size * Math.min(width, height));
      context.beginPath();
      context.moveTo(ax * width, ay * height);
      context.lineTo(bx * width + 0.01, by * height);
      context.stroke();
      context.globalCompositeOperation = 'source-over';
    }

    /** Takes a picture as mask: its brightness, as the run time does. @param {CanvasImageSource} picture */
    take(picture) {
      const { width, height } = this.canvas;
      this.context.clearRect(0, 0, width, height);
      this.context.drawImage(picture, 0, 0, width, height);
      const pixels = this.context.getImageData(0, 0, width, height);
      const { data } = pixels;
      for (let i = 0; i < data.length; i += 4) {
        const bright = Math.max(data[i], data[i + 1], data[i + 2]);
        data[i + 3] = Math.round((bright * data[i + 3]) / 255);
        data[i] = data[i + 1] = data[i + 2] = 255;
      }
      this.context.putImageData(pixels, 0, 0);
    }

    /** @returns {boolean} */
    get empty() {
      const { data } = this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
      for (let i = 3; i < data.length; i += 4) if (data[i] > 127) return false;
      return true;
    }

    /** @returns {string} a small PNG, white where the region is; hard edges where it was painted, so that it stays small */
    toDataURL() {
      const { width, height } = this.canvas;
      const pixels = this.context.getImageData(0, 0, width, height);
      const { data } = pixels;
      let soft = 0;
      for (let i = 3; i < data.length; i += 4) if (data[i] > 48 && data[i] < 208) soft++;
      const hard = soft * 20 < data.length / 4;
      for (let i = 0; i < data.length; i += 4) {
        const value = hard ? (data[i + 3] > 127 ? 255 : 0) : data[i + 3];
        data[i] = data[i + 1] = data[i + 2] = value;
        data[i + 3] = 255;
      }
      const flat = document.createElement('canvas');
      Object.assign(flat, { width, height });
      /** @type {CanvasRenderingContext2D} */ (flat.getContext('2d')).putImageData(pixels, 0, 0);
      return flat.toDataURL('image/png');
    }

    /** @param {string} colour @returns {string} a picture of the mask in a colour */
    tinted(colour) {
      const { width, height } = this.canvas;
      const picture = document.createElement('canvas');
      Object.assign(picture, { width, height });
      const context = /** @type {CanvasRenderingContext2D} */ (picture.getContext('2d'));
      context.drawImage(this.canvas, 0, 0);
      context.globalCompositeOperation = 'source-in';
      context.fillStyle = colour;
      context.fillRect(0, 0, width, height);
      return picture.toDataURL('image/png');
    }
  }

  /** @param {string} source a data URI or an object's URL @returns {Promise<HTMLImageElement>} */
  function loadPicture(source) {
    return new Promise((resolve, reject) => {
      const picture = new Image();
      picture.onload = () => resolve(picture);
      picture.onerror = () => reject(new Error('picture'));
      picture.src = source;
    });
  }

  const isDataUri = (/** @type {string} */ text) => /^data:image\/[a-z+.-]+;base64,/i.test(text.slice(0, 64));

  const parts = (globalThis.MultiDiffusionCompose ??= {});
  parts.mask = { Mask, loadPicture, isDataUri };
  if (typeof module !== 'undefined') module.exports = parts.mask;
})();
