import path from 'node:path';
import { defineConfig } from 'vite';

const here = import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname);

export default defineConfig({
  root: here,
  // Addresses relative to the page: it works from any folder of any static server.
  base: './',
  resolve: {
    // The page is the package's first user: it gets what npm users get, through the public entry.
    alias: { llamero: path.resolve(here, '../pkg/index.js') },
  },
  worker: { format: 'es' },
  build: {
    target: 'es2022',
    outDir: 'dist',
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  // `vitest` reads this file too.
  test: {
    include: ['lib/**/*.test.ts', 'app/**/*.test.ts', 'tools/**/*.test.mjs'],
    environment: 'node',
    testTimeout: 30_000,
  },
} as ReturnType<typeof defineConfig>);
