// Transformers.js on ONNX Runtime. Runs in the page; see ../browser.mjs for what a runtime offers.

/** `dtype`: which of the folder's files; `q8` is the one that is quick at both prefill and decode on a CPU. */
export async function load({ folder, device, threads, dtype }) {
  const { AutoModelForCausalLM, AutoTokenizer, TextStreamer, env } = await import(
    '/peers/@huggingface/transformers/dist/transformers.min.js'
  );
  Object.assign(env, {
    allowRemoteModels: false,
    allowLocalModels: true,
    localModelPath: folder,
    useBrowserCache: false,
  });
  env.backends.onnx.wasm.wasmPaths = new URL('/peers/onnxruntime-web/dist/', location.href).href;
  env.backends.onnx.wasm.numThreads = threads ?? navigator.hardwareConcurrency;
  const tokenizer = await AutoTokenizer.from_pretrained('model');
  const model = await AutoModelForCausalLM.from_pretrained('model', {
    device: device === 'webgpu' ? 'webgpu' : 'wasm',
    dtype,
    // On WebGPU it says at this level which provider each node went to; the page's console is read.
    ...(device === 'webgpu'
      ? { session_options: { logSeverityLevel: 0, logVerbosityLevel: 0 } }
      : {}),
  });

  const run = async (prompt, count, token) => {
    const inputs = tokenizer(prompt, { add_special_tokens: false });
    const ids = [];
    const streamer = new TextStreamer(tokenizer, {
      skip_prompt: true,
      callback_function: () => {},
      token_callback_function: (more) => {
        ids.push(...more);
        token();
      },
    });
    await model.generate({
      ...inputs,
      do_sample: false,
      max_new_tokens: count,
      min_new_tokens: count,
      streamer,
    });
    return { prompt: inputs.input_ids.dims[1], ids };
  };

  return {
    ran: { kind: device, dtype, threads: env.backends.onnx.wasm.numThreads },
    async prefill(prompt) {
      const start = performance.now();
      let first;
      const { prompt: tokens } = await run(prompt, 1, () => (first ??= performance.now()));
      return { tokens, ms: first - start };
    },
    async decode(prompt, count) {
      let [first, last] = [0, 0];
      const { ids } = await run(prompt, count, () => {
        last = performance.now();
        first ||= last;
      });
      return { tokens: ids.length, ms: last - first, text: tokenizer.decode(ids) };
    },
  };
}
