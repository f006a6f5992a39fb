// An application of ten lines for each bundler, in a folder of its own under target/, with the bundler in the version that
// versions.json names, and the package as its tarball.

import { execFile, spawn } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { promisify } from 'node:util';
import { json, ROOT, TINY } from '../support.mjs';

export { LONG, long } from '../support.mjs';

export const run = promisify(execFile);
const VERSIONS = json(ROOT, 'tests/browser/bundlers/versions.json');
const FOLDER = path.join(ROOT, 'target/bundlers');

let tarball;
async function pack() {
  mkdirSync(FOLDER, { recursive: true });
  const { stdout } = await run('npm', [
    'pack',
    path.join(ROOT, 'pkg'),
    '--json',
    '--pack-destination',
    FOLDER,
  ]);
  return path.join(FOLDER, JSON.parse(stdout)[0].filename);
}

/**
 * A fresh application with `files` (path to text), the packages of `name` in versions.json, and `llamero`.
 * Gives its folder, or undefined where its packages cannot be had (no registry).
 */
export async function application(name, files, { packages = name, type = 'module' } = {}) {
  const folder = path.join(FOLDER, name);
  const modules = path.join(folder, 'node_modules');
  const wanted = Object.entries(VERSIONS[packages] ?? {}).map(
    ([name, version]) => `${name}@${version}`,
  );
  const installed = path.join(folder, 'installed');
  const fresh = existsSync(installed) && readFileSync(installed, 'utf8') === wanted.join();
  // Of an earlier run only the packages stay.
  const kept = `${folder}.node_modules`;
  if (fresh && existsSync(modules)) {
    rmSync(kept, { recursive: true, force: true });
    renameSync(modules, kept);
  }
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(modules, { recursive: true });
  if (fresh && existsSync(kept)) {
    rmSync(modules, { recursive: true });
    renameSync(kept, modules);
  }
  const dependencies = { llamero: '*', ...VERSIONS[packages] };
  writeFileSync(
    path.join(folder, 'package.json'),
    JSON.stringify({
      name: 'user',
      private: true,
      ...(type ? { type } : {}),
      dependencies: VERSIONS[packages] ?? {},
    }),
  );
  if (!fresh && wanted.length) {
    try {
      await run(
        'npm',
        ['install', '--no-audit', '--no-fund', '--loglevel=error', '--prefer-offline'],
        { cwd: folder, timeout: 300_000 },
      );
    } catch (error) {
      if (/ENOTFOUND|ECONNREFUSED|EAI_AGAIN|ETIMEDOUT|ENOTCACHED/.test(`${error.stderr}`))
        return undefined;
      throw error;
    }
  }
  tarball ??= pack();
  for (const cache of ['.vite', '.cache', 'llamero'])
    rmSync(path.join(modules, cache), { recursive: true, force: true });
  mkdirSync(path.join(modules, 'llamero'), { recursive: true });
  await run('tar', [
    'xzf',
    await tarball,
    '-C',
    path.join(modules, 'llamero'),
    '--strip-components=1',
  ]);
  writeFileSync(
    path.join(folder, 'package.json'),
    JSON.stringify({ name: 'user', private: true, ...(type ? { type } : {}), dependencies }),
  );
  writeFileSync(installed, wanted.join());
  for (const [file, text] of Object.entries(files)) {
    mkdirSync(path.dirname(path.join(folder, file)), { recursive: true });
    writeFileSync(path.join(folder, file), text);
  }
  mkdirSync(path.join(folder, 'public'), { recursive: true });
  copyFileSync(TINY, path.join(folder, 'public/tiny.gguf'));
  return folder;
}

/** A program of an application's packages. */
export const program = (folder, name) => path.join(folder, 'node_modules/.bin', name);

/** Starts a server, and gives its address once it answers. */
export async function start(folder, program, args, port) {
  const child = spawn(program, args, {
    cwd: folder,
    env: {
      ...process.env,
      NO_COLOR: '1',
      FORCE_COLOR: '0',
      NEXT_TELEMETRY_DISABLED: '1',
      PARCEL_WORKER_BACKEND: 'thread',
    },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true, // some start servers of their own, which are to end with them
  });
  let said = '';
  let ended = false;
  child.stdout.on('data', (data) => (said += data));
  child.stderr.on('data', (data) => (said += data));
  child.on('exit', () => (ended = true));
  const url = `http://localhost:${port}`;
  const stop = () => {
    try {
      process.kill(-child.pid, 'SIGTERM');
    } catch {
      // it has ended
    }
  };
  for (let i = 0; i < 600; i += 1) {
    if (ended) throw new Error(`the server ended: ${said}`);
    const answer = await fetch(url).catch(() => undefined);
    if (answer) return { url, stop, said: () => said };
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  stop();
  throw new Error(`the server does not answer: ${said}`);
}

/** A free port. */
export function freePort() {
  return new Promise((resolve) => {
    const server = http.createServer().listen(0, () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

/** The server at `target` behind headers that isolate its pages. */
export async function isolated(target) {
  const { hostname, port } = new URL(target);
  const ask = (request, done) =>
    request.pipe(
      http
        .request(
          { hostname, port, path: request.url, method: request.method, headers: request.headers },
          done,
        )
        .on('error', () => {}),
    );
  const server = http.createServer((request, response) =>
    ask(request, (answer) => {
      response.writeHead(answer.statusCode, {
        ...answer.headers,
        'cross-origin-opener-policy': 'same-origin',
        'cross-origin-embedder-policy': 'require-corp',
      });
      answer.pipe(response);
    }),
  );
  // Development servers' own sockets.
  server.on('upgrade', (request, socket, sent) => {
    const onward = http.request({ hostname, port, path: request.url, headers: request.headers });
    onward.on('upgrade', (answer, other, came) => {
      socket.write(
        `HTTP/1.1 101 Switching Protocols\r\n${Object.entries(answer.headers)
          .map(([name, value]) => `${name}: ${value}\r\n`)
          .join('')}\r\n`,
      );
      socket.write(came);
      other.write(sent);
      other.pipe(socket).pipe(other);
      other.on('error', () => socket.destroy());
      socket.on('error', () => other.destroy());
    });
    onward.on('error', () => socket.destroy());
    onward.end();
  });
  await new Promise((resolve) => server.listen(0, resolve));
  return {
    url: `http://localhost:${server.address().port}`,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

const BODY = `
  const llama = await Llama.load(location.origin + '/tiny.gguf', { device: 'cpu', threads: 2 });
  const ids = [];
  for await (const { id } of llama.generate('Hello', { max_new_tokens: 8, ignore_eos: true })) ids.push(id);
  const { features, name, threads_reason } = llama.info.device;
  await llama.dispose();
  return { ids, features, name, threads_reason, isolated: crossOriginIsolated };
`;
/** A script that answers, and shows what came on the page. */
export const MAIN = `import { Llama } from 'llamero';
async function answer() {${BODY}}
answer().then(
  (answer) => (document.querySelector('#output').dataset.done = JSON.stringify(answer)),
  (error) => (document.querySelector('#output').dataset.done = JSON.stringify({ error: error.name + ' ' + error.code + ': ' + error.message + error.stack })),
);
`;
/** The same in a worker of the application's own. */
export const OWN_MAIN = `new Worker(new URL('./own.js', import.meta.url), { type: 'module' }).onmessage = ({ data }) =>
  (document.querySelector('#output').dataset.done = data);
`;
export const OWN_WORKER = `import { Llama } from 'llamero';
async function answer() {${BODY}}
answer().then(
  (answer) => postMessage(JSON.stringify(answer)),
  (error) => postMessage(JSON.stringify({ error: error.name + ' ' + error.code + ': ' + error.message + error.stack })),
);
`;
/** The same as a page of Next's. */
export const NEXT_PAGE = `'use client';
import { useEffect, useState } from 'react';
import { Llama } from 'llamero';
async function answer() {${BODY}}
export default function Page() {
  const [done, setDone] = useState();
  useEffect(() => {
    answer().then(
      (answer) => setDone(JSON.stringify(answer)),
      (error) => setDone(JSON.stringify({ error: error.name + ' ' + error.code + ': ' + error.message + error.stack })),
    );
  }, []);
  return <p id="output" data-done={done} />;
}
`;
export const NEXT_LAYOUT = `export default function Layout({ children }) {
  return <html lang="en"><body>{children}</body></html>;
}
`;
export const html = (
  script,
) => `<!doctype html><meta charset="utf-8"><title>user</title><link rel="icon" href="data:,">
<p id="output"></p><script type="module" src="${script}"></script>
`;

/** What the page at `url` answers. */
export async function answerOf(browser, url, patience = 60_000) {
  const page = await browser.newPage();
  const said = [];
  page.on('console', (message) => said.push(message.text()));
  page.on('pageerror', (error) => said.push(String(error)));
  try {
    await page.goto(url);
    const done = page.locator('#output[data-done]');
    await done.waitFor({ state: 'attached', timeout: patience }).catch((error) => {
      throw new Error(`${error.message}\nconsole: ${said.join('\n')}`);
    });
    return { ...JSON.parse(await done.getAttribute('data-done')), said };
  } finally {
    await page.close();
  }
}
