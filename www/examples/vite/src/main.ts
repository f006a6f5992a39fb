import { type GenerationOptions, Llama, LlameroError, type LoadProgress } from 'llamero';

const find = <E extends Element>(selector: string) => document.querySelector<E>(selector) as E;
const status = find('#status');
const bar = find<HTMLProgressElement>('progress');
const form = find<HTMLFormElement>('form');
const button = find<HTMLButtonElement>('button');
const output = find<HTMLOutputElement>('output');

/** The model lies in public/, from where Vite serves it as it is. Any other address works too. */
const MODEL = '/model.gguf';

const OPTIONS: GenerationOptions = { max_new_tokens: 64, temperature: 0.8, top_p: 0.95, seed: 1 };

function showProgress({ phase, loaded, total, seconds_left }: LoadProgress) {
  bar.value = total > 0 ? loaded / total : 0;
  status.textContent =
    seconds_left === undefined ? phase : `${phase}, ${Math.ceil(seconds_left)} s left`;
}

async function main() {
  const llama = await Llama.load(MODEL, { onProgress: showProgress });
  status.textContent = `${llama.info.name} runs on ${llama.info.device.kind}.`;
  bar.hidden = true;
  button.disabled = false;

  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const prompt = find<HTMLInputElement>('#prompt').value;
    output.textContent = prompt;
    const stream = llama.generate(prompt, OPTIONS);
    for await (const { text } of stream) output.append(text);
    // The result is there once the stream has ended: texts, token counts and times.
    const { usage, timings } = await stream.result();
    status.textContent = `${usage.completion_tokens} tokens, ${timings.decode_tokens_per_second.toFixed(1)} per second`;
    output.dataset.done = 'true';
  });
}

main().catch((error: unknown) => {
  // Every failure of the package is a LlameroError: `code` is for programs, `message` says what to do.
  status.textContent =
    error instanceof LlameroError ? `${error.code}: ${error.message}` : String(error);
});
