import type { ChatMessage, GenerationStream, Llama } from 'llamero';
import { type FormEvent, useEffect, useRef, useState } from 'react';
import { useLlama } from './use-llama';

export function App() {
  const model = useLlama('/model.gguf');
  if (model.state === 'failed') return <p role="alert">{model.error.message}</p>;
  if (model.state === 'loading') {
    const { loaded = 0, total = 0 } = model.progress ?? {};
    return <progress max={total || 1} value={loaded} />;
  }
  return <Chat llama={model.llama} />;
}

function Chat({ llama }: { llama: Llama }) {
  const [messages, setMessages] = useState<ChatMessage[]>([]);
  const [draft, setDraft] = useState('');
  const [error, setError] = useState('');
  const [stream, setStream] = useState<GenerationStream>();

  // An answer that is still under way when the component goes is stopped.
  const running = useRef<GenerationStream>(undefined);
  useEffect(() => () => running.current?.stop(), []);

  async function send(event: FormEvent) {
    event.preventDefault();
    const question = [...messages, { role: 'user', content: draft }];
    setDraft('');
    setError('');
    const stream = llama.chat(question, { max_new_tokens: 512 });
    running.current = stream;
    setStream(stream);
    try {
      let content = '';
      setMessages([...question, { role: 'assistant', content }]);
      for await (const { text } of stream) {
        content += text;
        setMessages([...question, { role: 'assistant', content }]);
      }
    } catch (error) {
      setError((error as Error).message);
    } finally {
      running.current = undefined;
      setStream(undefined);
    }
  }

  return (
    <main>
      {messages.map(({ role, content }, i) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: messages are only ever added at the end
        <p key={i} className={role}>
          <b>{role}:</b> <span>{content}</span>
        </p>
      ))}
      {error && <p role="alert">{error}</p>}
      <form onSubmit={send}>
        <input
          value={draft}
          onChange={(event) => setDraft(event.target.value)}
          aria-label="Message"
        />
        {stream ? (
          <button type="button" onClick={() => stream.stop()}>
            Stop
          </button>
        ) : (
          <button type="submit" disabled={!draft}>
            Send
          </button>
        )}
      </form>
    </main>
  );
}
