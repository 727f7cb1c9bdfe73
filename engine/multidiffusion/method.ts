/** The method's parts, as the nodes of a loop call them one by one. */
export { prepareBackgrounds, prepareInputs } from './bootstrap';
export { fuse } from './fusion';
export { predictNoise } from './guidance';
export { sample } from './sample';
export { bootstrappingAt, withBootstrapping, withFusion } from './strategy';
export * from './wire';
