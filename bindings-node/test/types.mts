// The types, as a program in TypeScript meets them. It is compiled, never run. Each `@ts-expect-error` fails the check when what
// stands below it is allowed.
import {
  type Account,
  type Cancel,
  Command,
  type CommandOutcome,
  type ConnectionState,
  DeviceClient,
  type DeviceIdentity,
  type ErrorCode,
  Event,
  EventReader,
  FeedbackBatch,
  FileCheckpoints,
  HubCheckpoints,
  MemoryCheckpoints,
  type Message,
  type ModuleIdentity,
  type Outcome,
  Receipt,
  Receipts,
  type ReceiptState,
  ServiceClient,
  setLog,
  Tracked,
  WhimbrelError,
} from 'whimbrel';

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
function is<A, B>(same: Same<A, B>): void {
  void same;
}

export async function device(signal: AbortSignal): Promise<void> {
  await using device = await DeviceClient.open('HostName=…', { outbox: './outbox', outboxMaxBytes: 1n, closeDeadlineMs: 5, signal });
  // @ts-expect-error an option that is none
  await DeviceClient.open('HostName=…', { outbx: './outbox' });
  // @ts-expect-error a word that is none
  await DeviceClient.open('HostName=…', { overflow: 'explode' });
  // @ts-expect-error a time is a number
  await DeviceClient.open('HostName=…', { keepAliveMs: '5 s' });
  // @ts-expect-error clients are opened
  new DeviceClient();

  const receipt = await device.send(new Uint8Array(1), { lane: 'alert', properties: { a: 'b' }, expiresInMs: 1, signal });
  is<typeof receipt, Receipt>(true);
  await device.send(Buffer.from('x'));
  // @ts-expect-error a string is no body
  await device.send('text');
  // @ts-expect-error properties are texts
  await device.send(new Uint8Array(1), { properties: { a: 1 } });
  // @ts-expect-error a lane that is none
  await device.send(new Uint8Array(1), { lane: 'fast' });
  await device.sendJson({ any: ['thing'] });
  const message: Message = { body: new Uint8Array(1), messageId: 'm', creationTime: new Date() };
  const receipts = await device.sendMany(new Set([new Uint8Array(1), message]));
  is<typeof receipts, Receipts>(true);
  is<ReturnType<Receipts['at']>, Receipt | undefined>(true);
  for (const one of receipts) is<typeof one, Receipt>(true);
  is<Awaited<ReturnType<typeof device.receipt>>, Receipt | null>(true);

  const outcome: Outcome = await receipt.outcome({ signal });
  switch (outcome.kind) {
    case 'delivered':
      is<typeof outcome.sequence, bigint | null>(true);
      is<typeof outcome.partition, number | null>(true);
      break;
    case 'expired':
      // @ts-expect-error it has no reason
      void outcome.reason;
      break;
    case 'dropped':
      is<typeof outcome.reason, 'made-room' | 'no-room' | 'damaged'>(true);
      break;
    case 'rejected':
      is<typeof outcome.reason, string>(true);
      break;
    default:
      is<typeof outcome, never>(true);
  }
  const state: ReceiptState = receipt.state();
  if (state.state === 'settled') is<typeof state.outcome, Outcome>(true);

  for await (const command of device.inbox()) {
    is<typeof command, Command>(true);
    is<typeof command.body, Uint8Array>(true);
    is<typeof command.sequence, bigint | null>(true);
    await command.complete({ signal });
    // @ts-expect-error what came is not changed
    command.messageId = 'x';
  }
  is<Awaited<ReturnType<ReturnType<typeof device.inbox>['next']>>, Command | null>(true);
  for await (const change of device.connectionChanges()) is<typeof change, ConnectionState>(true);
  is<ReturnType<typeof device.account>, Account>(true);
  is<Awaited<ReturnType<typeof device.flush>>, number>(true);
  is<Awaited<ReturnType<typeof device.counters>>['oldestAgeMs'], number | null>(true);
}

export async function service(): Promise<void> {
  await using service = await ServiceClient.connect('HostName=…', { sendTimeoutMs: 1 });
  const tracked = await service.send('d', new Uint8Array(1), { feedback: 'full' });
  is<typeof tracked, Tracked>(true);
  is<Awaited<ReturnType<typeof tracked.outcome>>, CommandOutcome>(true);
  // @ts-expect-error commands have no lanes
  await service.send('d', new Uint8Array(1), { lane: 'alert' });
  for (const checkpoints of [new FileCheckpoints('./c'), new HubCheckpoints(), new MemoryCheckpoints()]) {
    await using reader = await service.events({ checkpoints, position: { sequence: 5n }, group: 'g' });
    is<typeof reader, EventReader>(true);
    for await (const event of reader) {
      is<typeof event, Event>(true);
      is<typeof event.sequence, bigint>(true);
      is<typeof event.enqueuedAt, Date>(true);
      await event.checkpoint();
    }
  }
  await service.events({ position: 'end' });
  await service.events({ position: { time: new Date() } });
  // @ts-expect-error a position that is none
  await service.events({ position: 'middle' });
  // @ts-expect-error checkpoints are objects of ours
  await service.events({ checkpoints: new Map() });
  for await (const batch of service.feedback()) {
    is<typeof batch, FeedbackBatch>(true);
    is<(typeof batch.records)[number]['outcome'], CommandOutcome | null>(true);
    await batch.complete();
  }
  const created: DeviceIdentity = await service.registry.create('d');
  const module: ModuleIdentity = await service.registry.createModule({ deviceId: 'd', moduleId: 'm' });
  await service.registry.update({ ...created, status: 'disabled' });
  // @ts-expect-error a status that is none
  await service.registry.update({ ...created, status: 'broken' });
  is<ReturnType<typeof service.registry.connectionString>, string | null>(true);
  service.registry.connectionString(module);
  for await (const found of service.registry.query('SELECT * FROM devices', { pageSize: 5 })) is<typeof found, object>(true);
  const cancel: Cancel = { signal: AbortSignal.timeout(5) };
  await service.registry.delete('d', { etag: 'e', ...cancel });
}

export function errors(thrown: unknown): ErrorCode | undefined {
  if (!(thrown instanceof WhimbrelError)) return undefined;
  is<typeof thrown.retryAfterMs, number | null>(true);
  is<typeof thrown.details, Readonly<Record<string, string>>>(true);
  // @ts-expect-error a code that is none
  if (thrown.code === 'WHIMBREL_OOPS') return undefined;
  // @ts-expect-error errors are made by the package
  new WhimbrelError('x');
  return thrown.code === 'WHIMBREL_OUTBOX_FULL' ? thrown.code : undefined;
}

setLog(({ level, target, message }) => console.log(level, target, message), { level: 'debug' });
setLog(null);
// @ts-expect-error a level that is none
setLog(() => {}, { level: 'loud' });
