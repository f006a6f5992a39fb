// Every bundler with its default configuration: an application of ten lines loads a model and answers, with and without
// cross-origin isolation. These take minutes: `./build.sh test --all` runs them.

import assert from 'node:assert/strict';
import { copyFileSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { serve } from '../../www/tools/serve.mjs';
import {
  answerOf,
  application,
  freePort,
  html,
  isolated,
  long,
  MAIN,
  NEXT_LAYOUT,
  NEXT_PAGE,
  OWN_MAIN,
  OWN_WORKER,
  program,
  run,
  start,
} from './bundlers/support.mjs';
import { chromium, needs, TINY } from './support.mjs';

/** What the model answers everywhere; the command line says the same: tests/browser/node.test.mjs. */
const IDS = [114, 114, 114, 114, 114, 114, 114, 114];

const vite = { files: { 'main.js': MAIN, 'index.html': html('/main.js') } };
const ownWorker = { 'main.js': OWN_MAIN, 'own.js': OWN_WORKER, 'index.html': html('/main.js') };
const viteBuild = (folder) => run(program(folder, 'vite'), ['build'], { cwd: folder });
const viteDev = (folder, port) =>
  start(folder, program(folder, 'vite'), ['--port', String(port), '--strictPort'], port);
const nextFiles = { 'app/page.jsx': NEXT_PAGE, 'app/layout.jsx': NEXT_LAYOUT };
const next = (folder, ...args) =>
  run(program(folder, 'next'), args, {
    cwd: folder,
    env: { ...process.env, NEXT_TELEMETRY_DISABLED: '1' },
  });
const nextServer =
  (command) =>
  (folder, port, ...args) =>
    start(folder, program(folder, 'next'), [command, '--port', String(port), ...args], port);

/**
 * `build` makes the application; what it leaves in `output` is served, or `server` starts a server of the bundler's.
 * `plain`: it copies no files, so that the embedded engine runs, with one thread.
 */
const BUNDLERS = {
  'Vite 5, build': { app: 'vite5', ...vite, build: viteBuild, output: 'dist' },
  'Vite 5, dev': { app: 'vite5', ...vite, server: viteDev },
  'Vite 6, build': { app: 'vite6', ...vite, build: viteBuild, output: 'dist' },
  'Vite 6, dev': { app: 'vite6', ...vite, server: viteDev },
  'Vite 7, build': { app: 'vite7', ...vite, build: viteBuild, output: 'dist' },
  'Vite 7, dev': { app: 'vite7', ...vite, server: viteDev },
  'Vite 8, build': { app: 'vite8', ...vite, build: viteBuild, output: 'dist' },
  'Vite 8, dev': { app: 'vite8', ...vite, server: viteDev },
  "Vite 7, build, from a worker of the application's": {
    app: 'vite7',
    files: ownWorker,
    build: viteBuild,
    output: 'dist',
  },
  "Vite 7, dev, from a worker of the application's": {
    app: 'vite7',
    files: ownWorker,
    server: viteDev,
  },
  "Vite 8, build, from a worker of the application's": {
    app: 'vite8',
    files: ownWorker,
    build: viteBuild,
    output: 'dist',
  },
  'Next.js with Turbopack, build': {
    app: 'next',
    type: null,
    files: nextFiles,
    build: (folder) => next(folder, 'build'),
    server: nextServer('start'),
  },
  'Next.js with Turbopack, dev': {
    app: 'next',
    type: null,
    files: nextFiles,
    server: nextServer('dev'),
  },
  'Next.js with webpack, build': {
    app: 'next',
    type: null,
    files: nextFiles,
    build: (folder) => next(folder, 'build', '--webpack'),
    server: nextServer('start'),
  },
  'Next.js with webpack, dev': {
    app: 'next',
    type: null,
    files: nextFiles,
    server: (folder, port) => nextServer('dev')(folder, port, '--webpack'),
  },
  webpack: {
    app: 'webpack',
    files: { 'src/index.js': MAIN, 'index.html': html('/main.js') },
    build: (folder) =>
      run(program(folder, 'webpack-cli'), ['--mode', 'production'], { cwd: folder }),
    output: 'dist',
    page: 'index.html',
  },
  "webpack, an entry named as the package is, from a worker of the application's": {
    app: 'webpack',
    files: {
      'src/main.js': OWN_MAIN,
      'src/own.js': OWN_WORKER,
      'index.html': html('/llamero.js'),
      'webpack.config.cjs': "module.exports = { entry: { llamero: './src/main.js' } };",
    },
    build: (folder) =>
      run(program(folder, 'webpack-cli'), ['--mode', 'production', '-c', 'webpack.config.cjs'], {
        cwd: folder,
      }),
    output: 'dist',
    page: 'index.html',
  },
  Rspack: {
    app: 'rspack',
    files: { 'src/index.js': MAIN, 'index.html': html('/main.js') },
    build: (folder) =>
      run(program(folder, 'rspack'), ['build', '--mode', 'production'], { cwd: folder }),
    output: 'dist',
    page: 'index.html',
  },
  'Parcel, build': {
    app: 'parcel',
    files: { 'main.js': MAIN, 'index.html': html('./main.js') },
    build: (folder) => run(program(folder, 'parcel'), ['build', 'index.html'], { cwd: folder }),
    output: 'dist',
  },
  'Parcel, dev': {
    app: 'parcel',
    files: { 'main.js': MAIN, 'index.html': html('./main.js') },
    server: (folder, port) =>
      start(folder, program(folder, 'parcel'), ['index.html', '--port', String(port)], port),
    model: 'dist',
  },
  'esbuild, ES modules': {
    app: 'esbuild',
    files: { 'main.js': MAIN, 'index.html': html('/bundle.js') },
    build: (folder) =>
      run(
        program(folder, 'esbuild'),
        ['main.js', '--bundle', '--format=esm', '--outfile=dist/bundle.js'],
        { cwd: folder },
      ),
    output: 'dist',
    page: 'index.html',
    plain: true,
  },
  'esbuild, a classic script': {
    app: 'esbuild',
    files: { 'main.js': MAIN, 'index.html': html('/bundle.js').replace(' type="module"', '') },
    build: (folder) =>
      run(
        program(folder, 'esbuild'),
        ['main.js', '--bundle', '--minify', '--outfile=dist/bundle.js'],
        { cwd: folder },
      ),
    output: 'dist',
    page: 'index.html',
    plain: true,
  },
  'Rollup, one file': {
    app: 'rollup',
    files: { 'main.js': MAIN, 'index.html': html('/bundle.js') },
    build: (folder) =>
      run(
        program(folder, 'rollup'),
        ['main.js', '--file', 'dist/bundle.js', '--format', 'iife', '-p', 'node-resolve'],
        { cwd: folder },
      ),
    output: 'dist',
    page: 'index.html',
    plain: true,
  },
  'Rollup, a folder': {
    app: 'rollup',
    files: { 'main.js': MAIN, 'index.html': html('/main.js') },
    build: (folder) =>
      run(program(folder, 'rollup'), ['main.js', '--dir', 'dist', '-p', 'node-resolve'], {
        cwd: folder,
      }),
    output: 'dist',
    page: 'index.html',
    plain: true,
  },
};

describe('bundlers', { skip: long || needs('chromium', 'package', 'tiny') }, () => {
  let browser;
  before(async () => (browser = await chromium({ webgpu: false })));
  after(() => browser?.close());

  for (const [name, bundler] of Object.entries(BUNDLERS)) {
    test(name, { timeout: 400_000 }, async (t) => {
      const folder = await application(bundler.app, bundler.files, {
        type: bundler.type === undefined ? 'module' : bundler.type,
      });
      if (!folder) return t.skip('its packages cannot be installed: no registry');
      await bundler.build?.(folder);
      const output = bundler.output && path.join(folder, bundler.output);
      if (output) {
        if (bundler.page)
          copyFileSync(path.join(folder, bundler.page), path.join(output, 'index.html'));
        copyFileSync(TINY, path.join(output, 'tiny.gguf'));
        const files = readdirSync(output, { recursive: true })
          .map((file) => path.join(output, file))
          .filter((file) => file.endsWith('.js'));
        t.diagnostic(
          `${files.reduce((sum, file) => sum + statSync(file).size, 0)} bytes of JavaScript`,
        );
      }
      let server;
      if (bundler.server) {
        server = await bundler.server(folder, await freePort());
        if (bundler.model) copyFileSync(TINY, path.join(folder, bundler.model, 'tiny.gguf'));
      } else {
        const { url, close } = await serve({ '/': output }, { isolate: false, csp: null });
        server = { url, stop: close };
      }
      const proxy = await isolated(server.url);
      try {
        for (const [url, isolation] of [
          [server.url, false],
          [proxy.url, true],
        ]) {
          const answer = await answerOf(browser, url, 120_000);
          assert.equal(answer.error, undefined, `${answer.error}\n${answer.said.join('\n')}`);
          assert.deepEqual(answer.ids, IDS);
          assert.equal(answer.isolated, isolation);
          if (isolation && !bundler.plain) {
            assert.ok(answer.features.includes('threads'), JSON.stringify(answer));
            assert.equal(answer.name, '2 threads');
          } else {
            assert.ok(!answer.features.includes('threads'), JSON.stringify(answer));
            assert.match(answer.threads_reason, bundler.plain ? /wasmUrl/ : /isolated/);
          }
        }
      } finally {
        proxy.close();
        await server.stop();
      }
    });
  }
});
