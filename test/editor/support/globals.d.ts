/** What Node-RED's editor provides to the scripts in resources/. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any
declare const RED: any;
// eslint-disable-next-line @typescript-eslint/no-explicit-any
declare const $: any;
/** Of resources/migrations.js. */
declare const MultiDiffusionMigrations: {
  migrate(type: string, config: object): boolean;
  retired(type: string): string[];
};
/** An option, as the run time exports it. */
type Spec = import('../../../engine/options').OptionSpec;
/** A node as the editor has it. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any
type EditedNode = any;
