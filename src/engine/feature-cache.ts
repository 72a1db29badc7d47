/**
 * Features of inputs that were seen: values between segments, under their identity and the digest of the input
 * they came from. Bounded in bytes; what was used longest ago goes first.
 */
import type { Identity } from "../onnx/identity.js";
import type { Tensor } from "../tensor/tensor.js";

/** Features by identity and input digest. */
export class FeatureCache {
  readonly #limit: number;
  /** In the order of their last use. */
  readonly #entries = new Map<string, Tensor>();
  #bytes = 0;

  /** @param limit bytes that it may hold; 0 for none */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Whether it can hold anything. */
  get enabled(): boolean {
    return this.#limit > 0;
  }

  /** What it holds now. */
  get stats(): { entries: number; bytes: number; limit: number } {
    return { entries: this.#entries.size, bytes: this.#bytes, limit: this.#limit };
  }

  /** The value, if it is there. */
  get(identity: Identity, digest: string): Tensor | undefined {
    const key = keyOf(identity, digest);
    const found = this.#entries.get(key);
    if (!found) return undefined;
    this.#entries.delete(key);
    this.#entries.set(key, found);
    return found;
  }

  /** Keeps a value; it must not be changed any more. Values larger than the limit are not kept. */
  set(identity: Identity, digest: string, value: Tensor): void {
    const size = bytesIn(value);
    if (size > this.#limit) return;
    const key = keyOf(identity, digest);
    this.#remove(key);
    this.#entries.set(key, value);
    this.#bytes += size;
    for (const oldest of this.#entries.keys()) {
      if (this.#bytes <= this.#limit) break;
      this.#remove(oldest);
    }
  }

  /** Forgets everything. */
  clear(): void {
    this.#entries.clear();
    this.#bytes = 0;
  }

  #remove(key: string): void {
    const old = this.#entries.get(key);
    if (!old) return;
    this.#entries.delete(key);
    this.#bytes -= bytesIn(old);
  }
}

function keyOf(identity: Identity, digest: string): string {
  return `${identity} ${digest}`;
}

function bytesIn({ data }: Tensor): number {
  if (ArrayBuffer.isView(data)) return data.byteLength;
  return data.reduce((sum, text) => sum + 2 * text.length, 0);
}
