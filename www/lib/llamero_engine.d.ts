// What src/web/ exports, as wasm-bindgen writes it; the generated file takes this one's place in the package.

import type {
  ChatTemplateOptions,
  Costs,
  DecodeOptions,
  EmbedRequest,
  EncodeOptions,
  EngineOptions,
  EngineProgress,
  Event,
  GenerationRequest,
  GenerationResult,
  ModelInfo,
  Score,
  ScoreRequest,
  TextOrIds,
} from './generated/engine.js';

export interface EngineSource {
  name: string;
  size: number;
  read(offset: number, length: number): Promise<Uint8Array>;
}

export type Update =
  | Event
  | { type: 'logits'; first: number; values: Float32Array }
  | { type: 'done'; result: GenerationResult | Score[] | Float32Array[] | number }
  | { type: 'failed'; error: unknown };

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
    on_progress: (progress: EngineProgress) => void,
    on_opened: () => Promise<unknown>,
    start_threads: (
      module: WebAssembly.Module,
      memory: WebAssembly.Memory,
      handle: number,
      count: number,
    ) => Promise<number>,
  ): Promise<Engine>;
  info(): ModelInfo;
  tokenize(text: string, options: EncodeOptions): Uint32Array;
  detokenize(ids: Uint32Array, options: DecodeOptions): string;
  apply_chat_template(messages: readonly unknown[], options: ChatTemplateOptions): string;
  enqueue(request: GenerationRequest): number;
  step(on_update: (id: number, update: Update) => void): Promise<boolean>;
  cancel(id: number): void;
  enqueue_logits(text: TextOrIds): number;
  enqueue_score(request: ScoreRequest): number;
  enqueue_embed(request: EmbedRequest): number;
  updates(on_update: (id: number, update: Update) => void): void;
  costs(): Costs;
  copy_bandwidth(): Promise<number | undefined>;
  heap_bytes(): number;
  free(): void;
}
