// What the processes of a browser use: memory, processor time, and what others took meanwhile. Linux: reads /proc.

import { readdirSync, readFileSync } from 'node:fs';

/** Clock ticks per second in /proc (USER_HZ). */
const TICKS = 100;

function read(file) {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined; // the process ended meanwhile
  }
}

/** Parent, and seconds of processor time, of a process. */
function stat(pid) {
  const text = read(`/proc/${pid}/stat`);
  if (!text) return undefined;
  // The name in parentheses may hold anything.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return { pid, parent: fields[1], seconds: (Number(fields[11]) + Number(fields[12])) / TICKS };
}

/** A process and all below it. */
function family(root) {
  const all = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(stat)
    .filter(Boolean);
  const inside = new Set([root]);
  for (let grew = true; grew; ) {
    grew = false;
    for (const { pid, parent } of all) {
      if (inside.has(parent) && !inside.has(pid)) {
        inside.add(pid);
        grew = true;
      }
    }
  }
  return all.filter(({ pid }) => inside.has(pid));
}
const own = () => family(String(process.pid));

/** Seconds that all processors of the machine have been busy. */
function busy() {
  const [user, nice, system, , , irq, softirq] = read('/proc/stat')
    .split('\n')[0]
    .trim()
    .split(/\s+/)
    .slice(1)
    .map(Number);
  return (user + nice + system + irq + softirq) / TICKS;
}

/** A point in time to measure from. */
export function mark() {
  return {
    at: performance.now(),
    busy: busy(),
    own: own().reduce((sum, { seconds }) => sum + seconds, 0),
  };
}

/** Since a mark: processors that we used on average, and that others used. */
export function since(start) {
  const end = mark();
  const wall = (end.at - start.at) / 1000;
  const cores = (end.own - start.own) / wall;
  return { cores, others_cores: Math.max(0, (end.busy - start.busy) / wall - cores) };
}

/** Runs `start`, which starts a process, and gives what it gives and the process. */
export async function started(start) {
  const children = () =>
    own()
      .filter(({ parent }) => parent === String(process.pid))
      .map(({ pid }) => pid);
  const before = new Set(children());
  const result = await start();
  return [result, children().find((pid) => !before.has(pid))];
}

/** The most memory that a renderer of a browser has had, in MB. */
export function peakMemory(browser) {
  const renderers = family(browser).filter(({ pid }) =>
    read(`/proc/${pid}/cmdline`)?.includes('--type=renderer'),
  );
  const peaks = renderers.map(({ pid }) =>
    Number(/VmHWM:\s+(\d+)/.exec(read(`/proc/${pid}/status`) ?? '')?.[1] ?? 0),
  );
  return Math.max(...peaks) >> 10;
}

/** The process of a browser that talks to the GPU. */
export function gpuProcess(browser) {
  return Number(
    family(browser).find(({ pid }) => read(`/proc/${pid}/cmdline`)?.includes('--type=gpu-process'))
      ?.pid,
  );
}
