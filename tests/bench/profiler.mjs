// Where a worker spends its time.

/** Samples of the engine's worker, as DevTools takes them. */
export async function profiler(page) {
  const client = await page.context().newCDPSession(page);
  let worker;
  client.on('Target.attachedToTarget', ({ sessionId }) => (worker ??= sessionId));
  const profiles = [];
  client.on('Target.receivedMessageFromTarget', ({ message }) =>
    profiles.push(JSON.parse(message)),
  );
  const send = (id, method, params = {}) =>
    client.send('Target.sendMessageToTarget', {
      sessionId: worker,
      message: JSON.stringify({ id, method, params }),
    });
  await client.send('Target.setAutoAttach', {
    autoAttach: true,
    waitForDebuggerOnStart: false,
    flatten: false,
  });
  const started = setInterval(async () => {
    if (!worker) return;
    clearInterval(started);
    await send(1, 'Profiler.enable');
    await send(2, 'Profiler.start');
  }, 50);
  return {
    async stop() {
      await send(3, 'Profiler.stop');
      for (let i = 0; i < 100; i += 1) {
        const found = profiles.find(({ id }) => id === 3);
        if (found) return found.result.profile;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      throw new Error('no profile came');
    },
  };
}
