import tseslint from 'typescript-eslint';

const globals = (names) => Object.fromEntries(names.split(' ').map((name) => [name, 'readonly']));
const timers = 'setTimeout clearTimeout setInterval clearInterval';
const node = globals(
  `require module process console Buffer __dirname fetch URL structuredClone performance AbortController ${timers}`,
);
const browser = globals(
  'RED $ window document requestAnimationFrame getComputedStyle ResizeObserver HTMLElement structuredClone ' +
    `IntersectionObserver Image FileReader URL createImageBitmap ${timers}`,
);

export default tseslint.config(
  {
    ignores: [
      'dist/',
      '.work/',
      'models/',
      'training/',
      'test/output/',
      'test/fixtures/',
      'test/node-red-5/node_modules/',
      'test/dashboard/node_modules/',
    ],
  },
  ...tseslint.configs.recommended,
  { linterOptions: { reportUnusedDisableDirectives: 'off' } },
  {
    rules: {
      'max-len': ['error', { code: 139, tabWidth: 2 }],
      eqeqeq: ['error', 'always', { null: 'ignore' }],
      'no-console': 'error',
      'no-constant-condition': 'error',
      'no-fallthrough': 'error',
      'no-template-curly-in-string': 'error',
      'no-unsafe-finally': 'error',
      'object-shorthand': ['error', 'properties'],
      'prefer-const': 'error',
      // Heavy modules are required where they are needed, so that Node-RED starts quickly.
      '@typescript-eslint/no-require-imports': 'off',
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
    },
  },
  {
    // Plain Node scripts, some of which talk to a terminal.
    files: ['scripts/**/*.js', 'test/**/*.js'],
    languageOptions: { sourceType: 'commonjs', globals: node },
    rules: { 'no-undef': 'error', 'no-console': 'off' },
  },
  { files: ['bench/**'], rules: { 'no-console': 'off' } },
  {
    files: ['resources/**/*.js'],
    languageOptions: { sourceType: 'script', globals: browser },
    rules: { 'no-undef': 'error', 'no-var': 'off', '@typescript-eslint/no-this-alias': 'off' },
  },
);
