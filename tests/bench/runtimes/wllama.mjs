// wllama: llama.cpp as WebAssembly. Runs in the page; see ../browser.mjs for what a runtime offers.

export async function load({ model, device, threads, context }) {
  const { Wllama } = await import('/peers/@wllama/wllama/esm/index.min.js');
  const said = [];
  const hear = (...words) => said.push(words.join(' '));
  const logger = { debug: hear, log: hear, warn: hear, error: hear };
  const wllama = new Wllama({ default: '/peers/@wllama/wllama/esm/wasm/wllama.wasm' }, { logger });
  const layers = device === 'webgpu' ? {} : { n_gpu_layers: 0 };
  await wllama.loadModelFromUrl(new URL(model, location.href).href, {
    n_ctx: context,
    n_parallel: 1,
    n_threads: threads ?? navigator.hardwareConcurrency,
    ...layers,
  });

  // Where no adapter has what its shaders need, it runs on the CPU and says nothing: only its log of the buffers that
  // the weights went to tells.
  const buffers = said.flatMap(
    (line) => /load_tensors:\s+(\S+) model buffer size/.exec(line)?.[1] ?? [],
  );
  const onGpu = buffers.some((name) => /webgpu/i.test(name));
  if (buffers.length === 0) throw new Error("wllama's log does not say where the weights are");
  if (onGpu !== (device === 'webgpu'))
    throw new Error(
      `wllama was asked for ${device}, but put the weights in ${buffers} without an error`,
    );

  /** Calls `chunk(text)` for each piece; resolves to llama.cpp's own counts. */
  const complete = async (prompt, count, more, chunk) => {
    let timings;
    const onData = (data) => {
      if (data.choices?.[0]?.text) chunk(data.choices[0].text);
      timings = data.timings ?? timings;
    };
    await wllama.createCompletion({
      prompt,
      max_tokens: count,
      temperature: 0,
      cache_prompt: false,
      stream: true,
      onData,
      ...more,
    });
    if (!timings) throw new Error('no timings came');
    return timings;
  };

  return {
    ran: {
      kind: onGpu ? 'webgpu' : 'cpu',
      buffers,
      threads: wllama.getNumThreads(),
      multithread: wllama.isMultithread(),
      build: Wllama.getLibllamaVersion(),
    },
    async prefill(prompt) {
      const start = performance.now();
      let first;
      const { prompt_n: tokens, cache_n } = await complete(
        prompt,
        1,
        {},
        () => (first ??= performance.now()),
      );
      if (cache_n) throw new Error(`${cache_n} tokens of the prompt came from the cache`);
      return { tokens, ms: (first ?? performance.now()) - start };
    },
    async decode(prompt, count) {
      let [first, last, text] = [0, 0, ''];
      const { predicted_n: tokens } = await complete(
        prompt,
        count,
        { ignore_eos: true },
        (piece) => {
          last = performance.now();
          first ||= last;
          text += piece;
        },
      );
      return { tokens, ms: last - first, text };
    },
  };
}
