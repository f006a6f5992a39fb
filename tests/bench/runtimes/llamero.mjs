// This project's package. Runs in the page; see ../browser.mjs for what a runtime offers.

/** `build`: base, relaxed or threads; default: what the package picks. */
export async function load({ model, device, threads, context, build, tune }) {
  const { Llama } = await import('/pkg/index.js');
  const options = { device, max_context: context, tune };
  if (threads) options.threads = threads;
  if (build === 'base') options.wasmUrl = '/pkg/llamero_engine_bg.wasm';
  const llama = await Llama.load(model, options);
  const { kind, name, features, lanes, tuned, weight_bytes, cache_bytes, cache_type } =
    llama.info.device;
  if (kind !== device) throw new Error(`asked for ${device}, got ${kind}`);

  const decoding = (count, sequences) => ({
    max_new_tokens: count,
    ignore_eos: true,
    ...(sequences > 1 ? { num_return_sequences: sequences, temperature: 1, seed: 1 } : {}),
  });

  return {
    ran: { kind, name, features, lanes, tuned, weight_bytes, cache_bytes, cache_type },
    tokenizer: llama.tokenizer,
    async prefill(prompt) {
      const start = performance.now();
      const { usage } = await llama.generate(prompt, { max_new_tokens: 1 }).result();
      const ms = performance.now() - start;
      if (usage.cached_tokens)
        throw new Error(`${usage.cached_tokens} tokens of the prompt came from the cache`);
      return { tokens: usage.prompt_tokens, ms };
    },
    async decode(prompt, count, sequences = 1) {
      let [first, last, tokens, text] = [0, 0, 0, ''];
      for await (const event of llama.generate(prompt, decoding(count, sequences))) {
        last = performance.now();
        first ||= last;
        tokens += 1;
        text += event.text;
      }
      return { tokens, ms: last - first, text };
    },
    /** What a step of `decode` costs. */
    async costs(prompt, count, sequences = 1) {
      const spent = async (count) => {
        const before = await llama.costs();
        await llama.generate(prompt, decoding(count, sequences)).result();
        const after = await llama.costs();
        return Object.fromEntries(
          ['steps', 'dispatches', 'encode_ms'].map((name) => [name, after[name] - before[name]]),
        );
      };
      // What generating one token costs is prefill, of what the cache does not hold.
      await spent(1);
      const [one, all, { weight_bytes_per_token, cache_bytes_per_position }] = [
        await spent(1),
        await spent(count),
        await llama.costs(),
      ];
      const steps = all.steps - one.steps;
      return {
        ...(steps > 0
          ? {
              dispatches_per_step: (all.dispatches - one.dispatches) / steps,
              // Of every step: a difference of so small times is mostly noise.
              encode_ms_per_step: all.encode_ms / all.steps,
            }
          : {}),
        weight_bytes_per_token,
        cache_bytes_per_position,
      };
    },
    copyBandwidth: () => llama.copyBandwidth(),
  };
}
