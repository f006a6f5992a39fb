// Chats in Chromium: the clock, templates and their variables, warnings about a model's files. The model is made here, with a
// vocabulary of bytes, so that a prompt has as many tokens as its template writes bytes.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { chromium, libraryPage, needs, site } from './support.mjs';

describe('chats in Chromium', { skip: needs('chromium', 'package') }, () => {
  let server, browser, page;
  before(async () => {
    server = await site();
    browser = await chromium({ webgpu: false });
    // Where it is another day for half of the time than in UTC.
    page = await libraryPage(
      await browser.newContext({ timezoneId: 'Pacific/Kiritimati' }),
      server,
    );
    await page.evaluate(() => {
      const hex = (byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`;
      const decoders = [
        { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
      ];
      const tokenizer = {
        added_tokens: [],
        decoder: { type: 'Sequence', decoders },
        model: {
          type: 'BPE',
          vocab: Object.fromEntries(Array.from({ length: 256 }, (_, b) => [hex(b), b])),
          merges: [],
          byte_fallback: true,
        },
      };
      const [size, vocab] = [16, 256];
      const config = {
        ...{
          model_type: 'llama',
          hidden_size: size,
          intermediate_size: size,
          num_hidden_layers: 1,
          num_attention_heads: 2,
        },
        ...{
          vocab_size: vocab,
          max_position_embeddings: 64,
          rms_norm_eps: 1e-5,
          tie_word_embeddings: false,
        },
      };
      const square = [
        'self_attn.q_proj',
        'self_attn.k_proj',
        'self_attn.v_proj',
        'self_attn.o_proj',
        'mlp.gate_proj',
        'mlp.up_proj',
        'mlp.down_proj',
      ];
      const shapes = {
        ...{
          'model.embed_tokens.weight': [vocab, size],
          'lm_head.weight': [vocab, size],
          'model.norm.weight': [size],
        },
        ...Object.fromEntries(
          ['input_layernorm', 'post_attention_layernorm'].map((name) => [
            `model.layers.0.${name}.weight`,
            [size],
          ]),
        ),
        ...Object.fromEntries(
          square.map((name) => [`model.layers.0.${name}.weight`, [size, size]]),
        ),
      };
      const header = {};
      let end = 0;
      for (const [name, shape] of Object.entries(shapes)) {
        const begin = end;
        end += 4 * shape.reduce((product, n) => product * n);
        header[name] = { dtype: 'F32', shape, data_offsets: [begin, end] };
      }
      const text = new TextEncoder().encode(JSON.stringify(header));
      const weights = [
        BigUint64Array.of(BigInt(text.length)),
        text,
        Float32Array.from({ length: end / 4 }, (_, i) => ((i * 37) % 101) / 101 - 0.4),
      ];
      window.loadWith = (files) => {
        const own = {
          'config.json': JSON.stringify(config),
          'tokenizer.json': JSON.stringify(tokenizer),
        };
        const made = Object.entries({ ...own, ...files }).map(([name, text]) => {
          const file = new File([text], name.split('/').pop());
          // As a picked folder gives it.
          return Object.defineProperty(file, 'webkitRelativePath', { value: `model/${name}` });
        });
        return lib.Llama.load([new File(weights, 'model.safetensors'), ...made], {
          device: 'reference',
          threads: 1,
          max_context: 64,
        });
      };
    });
  });
  after(async () => {
    await browser?.close();
    await server?.close();
  });

  const messages = [{ role: 'user', content: 'hi' }];

  test('a template sees the local date, and chat_template_kwargs', async () => {
    const got = await page.evaluate(async (messages) => {
      const today = () => {
        const now = new Date();
        const month = 'Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec'.split(' ')[now.getMonth()];
        return `${String(now.getDate()).padStart(2, '0')} ${month} ${now.getFullYear()}`;
      };
      // As LLaMA 3.2's template asks for the date.
      const template =
        '{% if strftime_now is defined %}{{ strftime_now("%d %b %Y") }}{% endif %}{% if name is defined %}|{{ name.first }}{% endif %}';
      const llama = await loadWith({ 'chat_template.jinja': template });
      const days = [today()];
      const kwargs = { chat_template_kwargs: { name: { first: 'Ada' } } };
      const texts = [
        await llama.tokenizer.applyChatTemplate(messages),
        await llama.tokenizer.applyChatTemplate(messages, kwargs),
      ];
      days.push(today());
      const prompts = [];
      for (const options of [{}, kwargs]) {
        const { usage } = await llama
          .chat(messages, { max_new_tokens: 2, ignore_eos: true, ...options })
          .result();
        prompts.push([usage.prompt_tokens, usage.completion_tokens]);
      }
      const refused = await failure(() =>
        llama.tokenizer.applyChatTemplate(messages, { chat_template_kwargs: { messages: [] } }),
      );
      const { warnings, device } = llama.info;
      await llama.dispose();
      return {
        days,
        texts,
        prompts,
        refused,
        warnings,
        zone: new Date().getTimezoneOffset(),
        device: device.kind,
      };
    }, messages);
    assert.equal(got.zone, -14 * 60);
    assert.ok(got.days.includes(got.texts[0]), JSON.stringify(got));
    assert.equal(got.texts[1], `${got.texts[0]}|Ada`);
    assert.deepEqual(got.prompts, [
      ['04 Mar 2025'.length, 2],
      ['04 Mar 2025|Ada'.length, 2],
    ]);
    assert.equal(got.refused.code, 'invalid_input');
    assert.deepEqual(got.warnings, []);
  });

  test('named templates of a picked folder, and warnings about its files', async () => {
    const got = await page.evaluate(async (messages) => {
      const llama = await loadWith({
        'chat_template.jinja': 'D{{ bos_token }}{{ image_token }}',
        'additional_chat_templates/tool_use.jinja': 'T{{ tools|length }}',
        'additional_chat_templates/rag.jinja': 'R',
        'tokenizer_config.json': JSON.stringify({
          bos_token: '<none>',
          extra_special_tokens: { image_token: '<0x41>' },
        }),
        'generation_config.json': JSON.stringify({ eos_token_id: [10, 99999] }),
      });
      const by = (options) => llama.tokenizer.applyChatTemplate(messages, options);
      const texts = [
        await by({}),
        await by({ tools: [{}] }),
        await by({ tools: [{}], chat_template: 'rag' }),
        await by({ chat_template: 'own {{ 1 + 1 }}' }),
      ];
      const unknown = await failure(() => by({ chat_template: 'tool_us' }));
      const { usage } = await llama.chat(messages, { tools: [{}, {}], max_new_tokens: 1 }).result();
      const { warnings } = llama.info;
      await llama.dispose();
      return { texts, unknown, prompt: usage.prompt_tokens, warnings };
    }, messages);
    assert.deepEqual(got.texts, ['D<none><0x41>', 'T1', 'R', 'own 2']);
    assert.match(got.unknown.message, /tool_use/);
    assert.equal(got.prompt, 2);
    assert.equal(got.warnings.length, 2);
    assert.ok(
      got.warnings.some((text) => text.startsWith('tokenizer_config.json: bos_token is "<none>"')),
      got.warnings.join('\n'),
    );
    assert.ok(
      got.warnings.some((text) => text.startsWith('generation_config.json: eos_token_id is 99999')),
      got.warnings.join('\n'),
    );
  });
});
