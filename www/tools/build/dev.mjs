// `./build.sh dev`: the page out of the sources of www/ by Vite's development server, with one engine that is built
// quickly. A change of TypeScript reloads the page; a change of Rust or WGSL builds the engine again, then reloads it.

import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { answerer } from '../serve.mjs';
import { BUILDS, standIn } from './builds.mjs';
import { buildEngine, isNoEngineSource } from './engine.mjs';
import { servingOptions } from './page.mjs';
import { DEV_FOLDER, MODEL, ROOT } from './paths.mjs';
import { together } from './run.mjs';
import { filesIn } from './stamps.mjs';
import { needModel, needNpmPackages, needWasmRust } from './toolchain.mjs';
import { note, Problem, step } from './words.mjs';

/** The build that development uses. It runs in every browser. */
const ENGINE = 'base';
/** What the engine is made of, for the watcher. */
const WATCHED = ['src', 'shaders', 'build.rs', 'build', 'Cargo.toml', 'Cargo.lock'];

export async function dev(args) {
  const options = servingOptions(args);
  const [rust] = await together(needWasmRust(), needNpmPackages());
  const work = (signal) => buildEngine(ENGINE, rust, { dev: true, signal });
  await together(
    needModel(),
    // An engine that is out of date is there until the new one is.
    existsSync(path.join(DEV_FOLDER, `${BUILDS[ENGINE].file}_bg.wasm`)) ? undefined : work(),
  );

  step('serving');
  const server = await sourceServer(options);
  const { port } = server.httpServer.address();
  console.log(
    `\n  Llamero is at http://localhost:${port}/, and follows the sources.\n\n  Stop with Ctrl-C.`,
  );

  const rebuild = latest(async (signal) => {
    const began = Date.now();
    try {
      await work(signal);
      if (signal.aborted) return;
      note(`the engine is as its sources are, after ${((Date.now() - began) / 1000).toFixed(1)} s`);
      server.ws.send({ type: 'full-reload' });
    } catch (error) {
      if (signal.aborted) return;
      note(`${error.message}; the page keeps the engine that it has`);
      const message = 'The engine could not be built. The terminal says why.';
      server.ws.send({ type: 'error', err: { message, stack: '' } });
    }
  });
  server.watcher.add(
    WATCHED.filter((name) => existsSync(name)).map((name) => path.join(ROOT, name)),
  );
  server.watcher.on('all', (event, file) => {
    if (isEngineSource(path.relative(ROOT, file)) && !event.endsWith('Dir')) rebuild();
  });
  rebuild();
}

/**
 * Vite's server of the page's sources. `engine`: the folder of the engine that it has.
 * @returns {Promise<import('vite').ViteDevServer>}
 */
export async function sourceServer({ port, host, engine = DEV_FOLDER }) {
  const { createServer } = await import('vite');
  const allow = ['www', 'node_modules', engine].map((folder) => path.resolve(ROOT, folder));
  const server = await createServer({
    configFile: path.join(ROOT, 'www/vite.config.ts'),
    root: path.join(ROOT, 'www'),
    plugins: [fromSources(engine)],
    resolve: { alias: { llamero: path.join(ROOT, 'www/lib/index.ts') } },
    server: {
      port,
      host,
      strictPort: port !== 0,
      headers: {
        'Cross-Origin-Opener-Policy': 'same-origin',
        'Cross-Origin-Embedder-Policy': 'require-corp',
        'Cross-Origin-Resource-Policy': 'cross-origin',
      },
      fs: { allow },
    },
  });
  try {
    await server.listen();
  } catch (error) {
    await server.close();
    throw new Problem(
      `port ${port}: ${error.message}`,
      `choose another: ./build.sh dev --port ${port + 1}`,
    );
  }
  return server;
}

/** Whether an engine is made of a file; `file` is relative to the project. */
export function isEngineSource(file) {
  const parts = file.split(path.sep);
  return (
    WATCHED.includes(parts[0]) &&
    !parts.some((_, end) => isNoEngineSource(parts.slice(0, end + 1).join('/')))
  );
}

/**
 * A function that has `work` done `pause` milliseconds after its last call. A call while it is being done ends it (by the signal that
 * it gets), and has it done anew once it has ended.
 */
export function latest(work, pause = 100) {
  let timer;
  let running = Promise.resolve();
  let current;
  return () => {
    clearTimeout(timer);
    current?.abort();
    timer = setTimeout(() => {
      const own = new AbortController();
      current = own;
      running = running.then(() => (own.signal.aborted ? undefined : work(own.signal)));
    }, pause);
  };
}

/** A plugin of Vite: www/lib as it is, in place of the package, with the engine that lies in folder `engine`. */
export function fromSources(engine) {
  const library = path.join(ROOT, 'www/lib');
  return {
    name: 'llamero-sources',
    // Before Vite's own, which would look for the files.
    enforce: 'pre',
    resolveId(source, importer) {
      if (!importer?.startsWith(library)) return undefined;
      const name = path.posix.basename(source, '.js');
      const build = Object.keys(BUILDS).find((key) => BUILDS[key].file === name);
      if (build === undefined) return undefined;
      return build === ENGINE ? path.resolve(ROOT, engine, `${name}.js`) : `\0without ${build}`;
    },
    load(id) {
      const build = /^\0without (.*)$/.exec(id)?.[1];
      return build === undefined ? undefined : standIn(build);
    },
    transformIndexHtml(html) {
      return withVite(html);
    },
    configureServer(server) {
      const models = answerer({ '/models/': path.join(ROOT, path.dirname(MODEL)) }, { csp: '' });
      server.middlewares.use((request, response, next) => {
        const { pathname } = new URL(request.url, 'http://server');
        if (pathname.startsWith('/models/')) return models.answer(request, response);
        const found = inLibrary(pathname, engine);
        if (!found) return next();
        for (const [name, value] of Object.entries(server.config.server.headers))
          response.setHeader(name, value);
        response.setHeader('Cache-Control', 'no-store');
        response.setHeader('Content-Type', found.type);
        response.end(found.text ?? readFileSync(found.file));
      });
    },
  };
}

/** The page's content security policy allows what Vite's client does: a WebSocket, and styles in the page. */
export const withVite = (html) =>
  html
    .replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
    .replace("connect-src 'self'", "connect-src 'self' ws:");

/** What the server has at an address of the package that the sources have not: the worker's script, the engine. */
export function inLibrary(address, engine) {
  if (!address.startsWith('/lib/')) return undefined;
  const name = path.posix.basename(address);
  if (name === 'worker.js') {
    const entry = filesIn(['www/lib']).find((file) => path.basename(file) === 'worker-entry.ts');
    return {
      type: 'text/javascript',
      text: `import ${JSON.stringify(`/${path.posix.relative('www', entry)}`)};\n`,
    };
  }
  const file = path.resolve(ROOT, engine, name);
  return name.endsWith('_bg.wasm') && existsSync(file)
    ? { type: 'application/wasm', file }
    : undefined;
}
