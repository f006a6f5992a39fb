// Numbers and states in words.

import type { DeviceInfo, LoadProgress } from 'llamero';
import type { Report } from './measure.js';

export function megabytes(bytes: number): string {
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(2)} GB`;
  if (bytes >= 1e6) return `${(bytes / 1e6).toFixed(1)} MB`;
  return `${Math.max(1, Math.round(bytes / 1e3))} kB`;
}

export function seconds(value: number): string {
  if (value < 1) return 'less than a second';
  if (value < 90) return `${Math.round(value)} s`;
  if (value < 5400) return `${Math.round(value / 60)} min`;
  return `${(value / 3600).toFixed(1)} h`;
}

export function count(value: number): string {
  if (value >= 1e9) return `${(value / 1e9).toFixed(1)} billion`;
  if (value >= 1e6) return `${Math.round(value / 1e6)} million`;
  return value.toLocaleString('en');
}

/** A speed with three digits or more. */
export function rate(value: number): string {
  if (value >= 100) return Math.round(value).toLocaleString('en');
  return value.toFixed(value >= 10 ? 1 : 2);
}

const PHASES: Record<LoadProgress['phase'], string> = {
  download: 'Downloading',
  upload: 'Copying to the device',
  compile: 'Preparing the device',
  ready: 'Ready',
};

export function phase(progress: LoadProgress | undefined): string {
  return progress ? PHASES[progress.phase] : 'Opening';
}

/** "42.1 of 98.4 MB · 12.3 MB/s · 5 s left" */
export function progressDetail({
  phase,
  loaded,
  total,
  bytes_per_second,
  seconds_left,
}: Omit<LoadProgress, 'bytesPerSecond' | 'secondsLeft'>): string {
  if (phase === 'ready' || phase === 'compile') return '';
  const parts = [total > 0 ? `${megabytes(loaded)} of ${megabytes(total)}` : megabytes(loaded)];
  if (bytes_per_second > 0) parts.push(`${megabytes(bytes_per_second)}/s`);
  if (seconds_left !== undefined && loaded < total) parts.push(`${seconds(seconds_left)} left`);
  return parts.join(' · ');
}

type DeviceFacts = Pick<
  DeviceInfo,
  'kind' | 'name' | 'vendor' | 'architecture' | 'software' | 'fallback_reason'
>;

/** Which device runs the model, and how glad one may be about it. */
export function deviceWords(device: DeviceFacts): { text: string; warning: string | undefined } {
  const adapter = [device.vendor, device.architecture].filter(Boolean).join(' ') || device.name;
  if (device.kind === 'webgpu') {
    return device.software
      ? {
          text: `WebGPU in software${adapter ? ` (${adapter})` : ''}`,
          warning:
            'This browser runs WebGPU on the CPU (a software adapter), so answers are slow. Is the GPU switched off in its settings?',
        }
      : { text: `WebGPU${adapter ? ` (${adapter})` : ''}`, warning: undefined };
  }
  const text = device.kind === 'cpu' ? `CPU (${device.name})` : 'CPU, reference path';
  const slow = device.kind === 'cpu' ? 'No GPU is used' : 'The slow reference path runs';
  return {
    text,
    warning: device.fallback_reason ? `${slow}: ${device.fallback_reason}` : undefined,
  };
}

/** What writing a token takes. */
export function costWords({ costs, figures }: Pick<Report, 'costs' | 'figures'>): string {
  if (!costs) return '';
  const sentences = [
    `A token of writing reads ${megabytes(costs.weight_bytes_per_token)} of weights.`,
  ];
  const share = Math.max(
    0,
    ...figures.map(({ share_of_copy_bandwidth }) => share_of_copy_bandwidth ?? 0),
  );
  if (share > 0) {
    const percent = (100 * share).toFixed(share < 0.1 ? 1 : 0);
    const speed = megabytes(costs.copy_bytes_per_second ?? 0);
    sentences.push(
      `At its best that is ${percent} % of the memory speed that this GPU has while copying, ${speed}/s.`,
    );
  }
  if (costs.dispatches !== undefined && costs.encode_ms !== undefined)
    sentences.push(
      `It takes ${Math.round(costs.dispatches)} kernels, and ${costs.encode_ms.toFixed(2)} ms to tell the GPU about them.`,
    );
  return sentences.join(' ');
}

/** Texts one after the other, each with its full stop. */
export function sentences(...texts: string[]): string {
  return texts.map((text) => (/[.!?]$/.test(text) ? text : `${text}.`)).join(' ');
}

/**
 * What a model is called: by its file, without what only computers need, or by the name in the file where the file's own is
 * one that any model could have.
 */
export function modelTitle(label: string, name: string): string {
  const file = label.replace(/\.gguf$/i, '').replace(/-\d{5}-of-\d{5}$/, '');
  return name && /^(ggml[-_.])?model\b|^[0-9a-f]{32,}$|^$/i.test(file) ? name : file || name;
}

/** The name of the file or folder that an address leads to. */
export function fileLabel(address: string): string {
  const path = (address.split(/[?#]/)[0] ?? '')
    .replace(/\/+$/, '')
    .replace(/\/resolve\/[^/]+$/, '');
  const last = path.split('/').pop() || address;
  try {
    return decodeURIComponent(last);
  } catch {
    return last;
  }
}

/** What picked files are called together. */
export function filesLabel(
  files: readonly { name: string; webkitRelativePath?: string }[],
): string {
  const [first] = files;
  return (
    first?.webkitRelativePath?.split('/')[0] ||
    (files.find(({ name }) => name.endsWith('.gguf')) ?? first)?.name ||
    ''
  );
}
