// This project's package. Runs in the page; see ../browser.mjs for what a runtime offers.

/** `build`: base, relaxed or threads; default: what the package picks. */
export async function load({ model, device, threads, context, build }) {
  const { Llama } = await import('/pkg/index.js');
  const options = { device, max_context: context };
  if (threads) options.threads = threads;
  if (build === 'base') options.wasmUrl = '/pkg/llamero_engine_bg.wasm';
  const llama = await Llama.load(model, options);
  const { kind, name, features, weight_bytes, cache_bytes, cache_type } = llama.info.device;
  if (kind !== device) throw new Error(`asked for ${device}, got ${kind}`);

  return {
    ran: { kind, name, features, weight_bytes, cache_bytes, cache_type },
    tokenizer: llama.tokenizer,
    async prefill(prompt) {
      const start = performance.now();
      const { usage } = await llama.generate(prompt, { max_new_tokens: 1 }).result();
      const ms = performance.now() - start;
      if (usage.cached_tokens) throw new Error(`${usage.cached_tokens} tokens of the prompt came from the cache`);
      return { tokens: usage.prompt_tokens, ms };
    },
    async decode(prompt, count) {
      let [first, last, tokens, text] = [0, 0, 0, ''];
      for await (const event of llama.generate(prompt, { max_new_tokens: count, ignore_eos: true })) {
        last = performance.now();
        first ||= last;
        tokens += 1;
        text += event.text;
      }
      return { tokens, ms: last - first, text };
    },
    async memory() {
      return { wasm_heap_bytes: (await llama.memory()).wasm_heap_bytes };
    },
  };
}
