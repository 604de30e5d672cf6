import { orAbort, Queue, QueueFullError } from "../../serve/queue.ts";
import { assert, assertEquals, assertThrows } from "../support/assert_close.ts";

const never = new AbortController().signal;

Deno.test("one has its turn at a time, in the order in which they came", async () => {
  const queue = new Queue(3);
  const order: number[] = [];
  let working = 0;
  await Promise.all([0, 1, 2, 3].map(async (number) => {
    using place = queue.enter();
    assertEquals(place.ahead, number);
    await place.turn(never);
    assertEquals(++working, 1, "working at once");
    await new Promise((resolve) => setTimeout(resolve, 1));
    order.push(number);
    working--;
  }));
  assertEquals(order, [0, 1, 2, 3]);
  assertEquals([queue.running, queue.waiting], [0, 0]);
});

Deno.test("a line that is full takes nobody more, and says for how long", () => {
  const queue = new Queue(1);
  const places = [queue.enter(), queue.enter()];
  assertEquals([queue.running, queue.waiting], [1, 1]);
  try {
    queue.enter();
  } catch (error) {
    assert(error instanceof QueueFullError, String(error));
    assertEquals(error.seconds, 2, "a second for each of the two, before any has ended");
    places.forEach((place) => place[Symbol.dispose]());
    queue.enter();
    return;
  }
  throw new Error("it was taken");
});

Deno.test("a queue of 0 lets one work and none wait", async () => {
  const queue = new Queue(0);
  using _ = queue.enter();
  await assertThrows(() => queue.enter(), "Too many");
});

Deno.test("who leaves while waiting holds nobody up, and does not come back", async () => {
  const queue = new Queue(8);
  const [first, second, third] = [queue.enter(), queue.enter(), queue.enter()];
  const leaving = new AbortController();
  const waiting = second.turn(leaving.signal);
  leaving.abort(new Error("gone"));
  await assertThrows(() => waiting, "gone");
  second[Symbol.dispose]();
  second[Symbol.dispose]();
  assertEquals([queue.running, queue.waiting, third.ahead], [1, 1, 1]);
  first[Symbol.dispose]();
  await third.turn(never);
  assertEquals([queue.running, queue.waiting, third.ahead], [1, 0, 0]);
});

Deno.test("orAbort gives what comes first, and listens no longer", async () => {
  const { signal } = new AbortController();
  const listening = new Set<unknown>();
  signal.addEventListener = (_: string, listener: unknown) => listening.add(listener);
  signal.removeEventListener = (_: string, listener: unknown) => listening.delete(listener);
  assertEquals(await orAbort(Promise.resolve(1), signal), 1);
  await assertThrows(() => orAbort(Promise.reject(new Error("no")), signal), "no");
  assertEquals(listening.size, 0, "listeners");
  await assertThrows(() => orAbort(Promise.resolve(1), AbortSignal.abort(new Error("before"))), "before");
});
