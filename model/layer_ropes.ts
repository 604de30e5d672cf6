import type { Gpu } from "../kernels/gpu.ts";
import type { RopeTable } from "../kernels/rope/rope.ts";
import type { ModelConfig } from "./model_config.ts";
import { type RopeShape, ropeShift, type RopeTables, ropeTables, tablesServe } from "./rope.ts";

/** Rotary tables of a model's layers on the device. Layers that rotate alike share one. */
export class LayerRopes {
  readonly #gpu: Gpu;
  readonly #ropes: readonly (Made | null)[];

  constructor(gpu: Gpu, config: ModelConfig) {
    this.#gpu = gpu;
    const distinct = new Map<string, Made>();
    this.#ropes = config.layers.map(({ rope }): Made | null => {
      if (rope === null) return null;
      const shape = {
        ...(rope === "model" ? config : rope),
        max_position_embeddings: config.max_position_embeddings,
      };
      const key = JSON.stringify([shape.rope_theta, shape.rope_scaling, shape.rotary_dim]);
      const made = distinct.get(key) ?? { shape, length: 0, table: undefined };
      distinct.set(key, made);
      return made;
    });
  }

  /** Gives each layer's table for sequences of `length` tokens; null where a layer does not rotate. Borrowed until the next call. */
  forLength(length: number): (RopeTable | null)[] {
    for (const made of new Set(this.#ropes)) {
      if (made && !(made.table && tablesServe(made.shape, made.length, length))) this.#make(made, length);
    }
    return this.#ropes.map((made) => made && made.table!);
  }

  /** Makes each layer's rotation by `count` positions alone (1, R / 2), null where it does not rotate; the caller frees them. */
  shiftsBy(count: number, length: number): { perLayer: (RopeTable | null)[]; free: () => void } {
    const shifts = new Map<Made | null, RopeTable | null>();
    for (const made of new Set(this.#ropes)) {
      const tables = made && ropeShift(made.shape, count, length);
      const tensor = (values: Float32Array) =>
        this.#gpu.tensor([1, values.length], values, { label: "rope shift" });
      shifts.set(made, tables && { cos: tensor(tables.cos), sin: tensor(tables.sin) });
    }
    return {
      perLayer: this.#ropes.map((made) => shifts.get(made)!),
      free: () => {
        for (const shift of shifts.values()) {
          shift?.cos.free();
          shift?.sin.free();
        }
      },
    };
  }

  free(): void {
    for (const made of new Set(this.#ropes)) {
      made?.table?.cos.free();
      made?.table?.sin.free();
    }
  }

  #make(made: Made, length: number): void {
    made.table?.cos.free();
    made.table?.sin.free();
    let tables: RopeTables | undefined;
    const values = () => tables ??= ropeTables(made.shape, length);
    const shape = [length, made.shape.rotary_dim / 2];
    made.length = length;
    made.table = {
      cos: this.#gpu.tensor(shape, () => values().cos, { label: "rope cos" }),
      sin: this.#gpu.tensor(shape, () => values().sin, { label: "rope sin" }),
    };
  }
}

/** A table and the sequences that it is for. */
interface Made {
  readonly shape: RopeShape;
  length: number;
  table: RopeTable | undefined;
}
