// What src/web/ exports, as wasm-bindgen writes it; the generated file takes this one's place in the package.

export interface EngineSource {
  name: string;
  size: number;
  read(offset: number, length: number): Promise<Uint8Array>;
}

export interface EngineOptions {
  device?: string;
  max_context?: number;
  kv_cache_type?: string;
  kernels?: Partial<Record<string, boolean | number>>;
  tune?: boolean;
  threads?: number;
}

export interface InitOutput {
  readonly memory: WebAssembly.Memory;
}

export default function init(input?: {
  module_or_path?: string | URL | Request | Response | WebAssembly.Module;
  memory?: WebAssembly.Memory;
}): Promise<InitOutput>;

export function join_pool(handle: number): void;
export function pool_died(handle: number): void;

/** Says how a tokenizer.json is read: `open` gives a `Pipeline` of the module that does. */
export function set_tokenizers(
  open: (json: Uint8Array, adjustments: string) => Promise<unknown>,
): void;

export class Engine {
  private constructor();
  static load(
    sources: EngineSource[],
    options: EngineOptions,
    on_progress: (progress: { phase: string; loaded: number; total: number }) => void,
    on_opened: () => Promise<void>,
    start_threads: (
      module: WebAssembly.Module,
      memory: WebAssembly.Memory,
      handle: number,
      count: number,
    ) => Promise<number>,
  ): Promise<Engine>;
  info(): any;
  tokenize(text: string, options: { add_special?: boolean; parse_special?: boolean }): Uint32Array;
  detokenize(ids: Uint32Array, options: { skip_special?: boolean }): string;
  apply_chat_template(
    messages: any,
    options: { add_generation_prompt?: boolean; tools?: any },
  ): string;
  enqueue(request: any): number;
  step(on_update: (id: number, update: any) => void): Promise<boolean>;
  cancel(id: number): void;
  logits(ids: Uint32Array): Promise<Float32Array>;
  costs(): any;
  copy_bandwidth(): Promise<number | undefined>;
  heap_bytes(): number;
  free(): void;
}
