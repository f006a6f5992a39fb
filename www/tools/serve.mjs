// A static file server for developing and testing: ranges, ETags, the right MIME types, cross-origin isolation and a
// strict content security policy. No dependencies.
//
//   node www/tools/serve.mjs [--port N] [--host H] [--no-isolation] PREFIX=FOLDER_OR_FILE ...
//
// Tests import `serve()` and set `faults`: what a bad network or a bad server does to one path.

import { createReadStream, readFileSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import path from 'node:path';
import { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { brotliCompressSync, constants, deflateSync, gzipSync } from 'node:zlib';

const TYPES = {
  '.css': 'text/css; charset=utf-8',
  '.gguf': 'application/octet-stream',
  '.html': 'text/html; charset=utf-8',
  '.ico': 'image/x-icon',
  '.js': 'text/javascript; charset=utf-8',
  '.json': 'application/json',
  '.map': 'application/json',
  '.mjs': 'text/javascript; charset=utf-8',
  '.png': 'image/png',
  '.svg': 'image/svg+xml',
  '.txt': 'text/plain; charset=utf-8',
  '.wasm': 'application/wasm',
  '.webmanifest': 'application/manifest+json',
};

/** What the page needs and no more. Any https model may be opened by its address; scripts only come from here. */
export const CSP = [
  "default-src 'none'",
  "script-src 'self' 'wasm-unsafe-eval'",
  "worker-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "connect-src 'self' https: http://localhost:* http://127.0.0.1:*",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

/**
 * @typedef {object} Fault
 * @property {number} [status]        reply with this status and no body
 * @property {number|string} [retryAfter] with `status`: the header Retry-After
 * @property {string} [redirect]      reply 302 to this address
 * @property {boolean} [ignoreRange]  answer 200 with everything, as a server without range support does
 * @property {boolean} [noLength]     leave Content-Length out (chunked)
 * @property {number} [breakAt]       cut the connection after this many bytes of the file...
 * @property {number} [times]         ...this many times only (any fault); default: always
 * @property {number} [size]          pretend that the file ends here (a well-formed reply with less than the file)
 * @property {string} [html]          reply 200 with this page
 * @property {number} [bytesPerSecond] slow down
 * @property {boolean} [hang]         take the request and never answer
 * @property {number} [hangAt]        send nothing after this many bytes of the file, and leave the connection open
 * @property {'gzip'|'br'|'deflate'} [encoding] keep the file compressed, and give out ranges of that, as object stores do
 * @property {string} [authorization] reply 401 unless the request has this header Authorization
 * @property {number} [most]          answer a range with this many bytes at most
 * @property {Record<string, string>} [headers] send these headers, over the usual ones
 * @property {boolean} [cors]         let other origins read the answer, and answer their preflights
 */

/**
 * Serves `mounts` ({'/prefix/': folder, '/name': file}; the longest prefix wins).
 * @returns {Promise<{url: string, port: number, requests: {method: string, path: string, range: string|null, headers: Record<string, string>, status: number, sent: number}[], faults: Map<string, Fault>, close(): Promise<void>}>}
 */
export async function serve(mounts, { port = 0, host = '127.0.0.1', ...options } = {}) {
  const { answer, requests, faults } = answerer(mounts, options);
  const server = createServer(answer);
  await new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, resolve);
  });
  const actual = server.address().port;
  return {
    url: `http://${host === '0.0.0.0' || host === '127.0.0.1' ? 'localhost' : host}:${actual}`,
    port: actual,
    requests,
    faults,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** What answers the requests of `serve`: `answer(request, response)`, for a server of Node's. */
export function answerer(mounts, { isolate = true, csp = CSP, cors = false } = {}) {
  const prefixes = Object.entries(mounts).sort((a, b) => b[0].length - a[0].length);
  /** @type {Map<string, Fault>} */
  const faults = new Map();
  /** Every request, in order: {method, path, range, headers, status, sent}. */
  const requests = [];

  const locate = (name) => {
    for (const [prefix, target] of prefixes) {
      if (!prefix.endsWith('/')) {
        if (name === prefix) return target;
      } else if (name.startsWith(prefix)) {
        const relative = path.posix.normalize(`/${name.slice(prefix.length)}`);
        return path.join(target, relative.endsWith('/') ? `${relative}index.html` : relative);
      }
    }
    return undefined;
  };

  const answer = (request, response) => {
    let name;
    try {
      name = decodeURIComponent(new URL(request.url, 'http://server').pathname);
    } catch {
      response.writeHead(400).end();
      return;
    }
    const { method, headers } = request;
    const entry = { method, path: name, range: headers.range ?? null, headers, status: 0, sent: 0 };
    requests.push(entry);
    response.on('close', () => (entry.status = response.statusCode));

    let fault = faults.get(name) ?? {};
    if (fault.times !== undefined) {
      if (fault.times <= 0) fault = {};
      else fault.times -= 1;
    }
    if (isolate) {
      response.setHeader('Cross-Origin-Opener-Policy', 'same-origin');
      response.setHeader('Cross-Origin-Embedder-Policy', 'require-corp');
    }
    if (csp) response.setHeader('Content-Security-Policy', csp);
    response.setHeader('Cross-Origin-Resource-Policy', 'cross-origin');
    response.setHeader('X-Content-Type-Options', 'nosniff');
    response.setHeader('Cache-Control', 'no-cache');
    if (cors || fault.cors) {
      response.setHeader('Access-Control-Allow-Origin', '*');
      response.setHeader('Access-Control-Expose-Headers', 'Content-Range, ETag, Accept-Ranges');
      if (method === 'OPTIONS') {
        response.setHeader(
          'Access-Control-Allow-Headers',
          headers['access-control-request-headers'] ?? '',
        );
        return void response.writeHead(204).end();
      }
    }
    if (fault.hang) return;
    for (const [header, value] of Object.entries(fault.headers ?? {}))
      response.setHeader(header, value);

    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.writeHead(405, { Allow: 'GET, HEAD' }).end();
      return;
    }
    if (fault.redirect) return void response.writeHead(302, { Location: fault.redirect }).end();
    if (fault.status) {
      if (fault.retryAfter !== undefined) response.setHeader('Retry-After', fault.retryAfter);
      return void response.writeHead(fault.status).end();
    }
    if (fault.authorization && headers.authorization !== fault.authorization)
      return void response.writeHead(401).end();
    if (fault.html)
      return void response.writeHead(200, { 'Content-Type': TYPES['.html'] }).end(fault.html);

    const file = locate(name);
    let stat;
    try {
      stat = file && statSync(file);
    } catch {
      // answered below
    }
    if (!stat?.isFile()) {
      response
        .writeHead(404, { 'Content-Type': 'text/plain; charset=utf-8' })
        .end(`${name} is not here\n`);
      return;
    }
    const bytes = fault.encoding && compressed(file, fault.encoding);
    if (bytes) response.setHeader('Content-Encoding', fault.encoding);
    const size = Math.min(fault.size ?? Infinity, bytes ? bytes.length : stat.size);
    const etag = `"${stat.size.toString(36)}-${Math.trunc(stat.mtimeMs).toString(36)}"`;
    const own = {
      'Content-Type': TYPES[path.extname(file)] ?? 'application/octet-stream',
      ETag: etag,
      'Last-Modified': stat.mtime.toUTCString(),
    };
    for (const [header, value] of Object.entries(own)) {
      if (!response.hasHeader(header)) response.setHeader(header, value);
    }
    if (!fault.ignoreRange) response.setHeader('Accept-Ranges', 'bytes');
    if (request.headers['if-none-match'] === etag) return void response.writeHead(304).end();

    let [start, end] = [0, size - 1];
    const condition = request.headers['if-range'];
    const range = /^bytes=(\d*)-(\d*)$/.exec(request.headers.range ?? '');
    if (
      range &&
      !fault.ignoreRange &&
      (range[1] || range[2]) &&
      (!condition || condition === etag)
    ) {
      if (range[1] === '') start = Math.max(0, size - Number(range[2]));
      else {
        start = Number(range[1]);
        if (range[2] !== '') end = Math.min(end, Number(range[2]));
      }
      if (start > end)
        return void response.writeHead(416, { 'Content-Range': `bytes */${size}` }).end();
      if (fault.most) end = Math.min(end, start + fault.most - 1);
      response.statusCode = 206;
      if (!response.hasHeader('Content-Range'))
        response.setHeader('Content-Range', `bytes ${start}-${end}/${size}`);
    }
    if (!fault.noLength && !response.hasHeader('Content-Length'))
      response.setHeader('Content-Length', end - start + 1);
    if (request.method === 'HEAD' || end < start) return void response.end();
    const content = bytes
      ? Readable.from(slices(bytes.subarray(start, end + 1)))
      : createReadStream(file, { start, end });
    response.flushHeaders();
    send(response, content, start, end, fault, entry);
  };
  return { answer, requests, faults };
}

function* slices(bytes) {
  for (let at = 0; at < bytes.length; at += 65536) yield bytes.subarray(at, at + 65536);
}

/** What a file is in an encoding, kept until the file changes. */
const COMPRESSED = new Map();
function compressed(file, encoding) {
  const key = `${encoding} ${file} ${statSync(file).mtimeMs}`;
  const quick = { params: { [constants.BROTLI_PARAM_QUALITY]: 1 } };
  const make = {
    gzip: (b) => gzipSync(b, { level: 1 }),
    br: (b) => brotliCompressSync(b, quick),
    deflate: deflateSync,
  };
  if (!COMPRESSED.has(key)) COMPRESSED.set(key, make[encoding](readFileSync(file)));
  return COMPRESSED.get(key);
}

async function send(response, stream, start, end, fault, entry) {
  const cut = fault.breakAt ?? fault.hangAt ?? Infinity;
  const began = Date.now();
  response.on('close', () => stream.destroy());
  try {
    for await (let chunk of stream) {
      const left = cut - start - entry.sent;
      if (chunk.length > left) chunk = chunk.subarray(0, Math.max(0, left));
      entry.sent += chunk.length;
      if (!response.write(chunk) && entry.sent < end - start + 1) {
        await writable(response);
      }
      if (response.destroyed) return;
      if (start + entry.sent >= cut) {
        if (fault.breakAt === undefined) return;
        // Let what was written reach the other side first; a reset at once may swallow it.
        setTimeout(() => response.destroy(), 50);
        return;
      }
      if (fault.bytesPerSecond) {
        const due = began + (entry.sent / fault.bytesPerSecond) * 1000;
        if (due > Date.now()) await new Promise((resolve) => setTimeout(resolve, due - Date.now()));
      }
    }
    response.end();
  } catch {
    response.destroy();
  }
}

/** Until a response takes more, or is gone. */
function writable(response) {
  return new Promise((resolve) => {
    const done = () => {
      response.off('drain', done).off('close', done);
      resolve();
    };
    response.on('drain', done).on('close', done);
  });
}

async function main() {
  const mounts = {};
  const options = { port: 8080 };
  const args = process.argv.slice(2);
  while (args.length) {
    const arg = args.shift();
    if (arg === '--port') options.port = Number(args.shift());
    else if (arg === '--host') options.host = args.shift();
    else if (arg === '--no-isolation') options.isolate = false;
    else if (arg.includes('='))
      mounts[arg.slice(0, arg.indexOf('='))] = path.resolve(arg.slice(arg.indexOf('=') + 1));
    else {
      console.error(`unknown argument ${arg}`);
      process.exit(2);
    }
  }
  if (!Number.isInteger(options.port) || options.port < 0 || options.port > 65535) {
    console.error('--port wants a number from 0 to 65535');
    process.exit(2);
  }
  await show(mounts, options);
}

/** Serves until the process is ended, and prints the address. */
export async function show(mounts, options) {
  try {
    const server = await serve(mounts, options);
    console.log(`\n  Llamero is at ${server.url}/\n\n  Stop with Ctrl-C.`);
  } catch (error) {
    if (error.code !== 'EADDRINUSE') throw error;
    console.error(
      `error: port ${options.port} is in use; choose another: ./build.sh serve --port ${options.port + 1}`,
    );
    process.exit(1);
  }
}

if (process.argv[1] && fileURLToPath(import.meta.url) === path.resolve(process.argv[1]))
  await main();
