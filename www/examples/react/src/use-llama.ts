import { Llama, type LoadProgress } from 'llamero';
import { useEffect, useState } from 'react';

export type Model =
  | { state: 'loading'; progress?: LoadProgress }
  | { state: 'ready'; llama: Llama }
  | { state: 'failed'; error: Error };

/**
 * Loads a model for as long as the component is mounted. In development, StrictMode mounts every component twice: the first
 * load is then aborted at once, before it has read anything of the model.
 */
export function useLlama(source: string): Model {
  const [model, setModel] = useState<Model>({ state: 'loading' });

  useEffect(() => {
    const controller = new AbortController();
    const { signal } = controller;
    // After the component is unmounted, nothing may change its state.
    const update = (model: Model) => signal.aborted || setModel(model);

    update({ state: 'loading' });
    const loading = Llama.load(source, {
      signal,
      onProgress: (progress) => update({ state: 'loading', progress }),
    });
    loading.then(
      (llama) => update({ state: 'ready', llama }),
      (error) => update({ state: 'failed', error }),
    );

    return () => {
      controller.abort();
      // A model that was loaded is freed. A load that was aborted has nothing to free.
      loading.then(
        (llama) => llama.dispose(),
        () => {},
      );
    };
  }, [source]);

  return model;
}
