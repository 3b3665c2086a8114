// The same package by `require`.
import whimbrel = require('whimbrel');

export async function open(): Promise<whimbrel.DeviceClient> {
  const device: whimbrel.DeviceClient = await whimbrel.DeviceClient.open('HostName=…', { outboxInMemory: true });
  const receipt: whimbrel.Receipt = await device.send(new Uint8Array(1));
  const id: string = receipt.messageId;
  void id;
  return device;
}
