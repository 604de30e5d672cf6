/** The classes of products, the kernels that serve each, and which to take. */
import type { Gpu, Sharing } from "../gpu.ts";
import { NF4 } from "../nf4/operand.ts";
import { chosenVariant, type Tunable } from "../tuning.ts";
import type { QuantisedWeight, WeightForm } from "../weight.ts";
import type { Format } from "../wgsl.ts";
import { runApart } from "./apart.ts";
import { dequantiseFirst } from "./dequantise_first.ts";
import { DENSE } from "./operands/dense.ts";
import { BY_SUBGROUP } from "./software/software.ts";
import { BY_MATRIX, usesMatrices } from "./tiles/matrix.ts";
import { BY_WORKGROUP } from "./tiles/workgroup.ts";
import {
  type Product,
  type ProductKind,
  type ProductShape,
  type Size,
  SIZES,
  type Variant,
} from "./variant.ts";

/** Forms of weights whose products are classes of their own. */
const FORMS: readonly WeightForm[] = [DENSE, NF4];

/** A class of products; `shape` is one of its kind, for measuring. */
export interface MatmulTunable extends Tunable {
  readonly kind: ProductKind;
  readonly shape: ProductShape;
}

/** Elements of C from which the largest tiles still make a few hundred workgroups. */
const LARGE = 2 ** 22;

/** For weights in fewer bits and many rows. */
const DEQUANTISE_FIRST = dequantiseFirst(runProduct);

/**
 * Narrow products have few tiles and wait for memory: with 8 subgroups a tile has twice as many bytes on their way, and need
 * not be split. Where these do not fit, those with 4 do.
 */
const NARROW = ["matrix 64x64 by 8", "matrix 64x64"];

/** Names of the variants to try first on matrix units, in this order, where those are not the processor's. */
const MATRIX_DEFAULTS: Partial<Record<Size, readonly string[]>> = {
  "128 columns": NARROW,
  "128 rows": NARROW,
  large: ["matrix 128x128 of halves", "matrix 128x128"],
  medium: ["matrix 64x128"],
};

/**
 * Sizes at which a GPU writes quantised weights to memory as floats first. In the tile each of its rows' blocks decodes
 * every weight again, some 9 % of the time; as floats a weight costs 2.5 bytes of traffic, once. Even at about 140 rows.
 */
const DEQUANTISED: ReadonlySet<Size> = new Set(["large", "medium"]);

/** Names of the variants to try first, by how the device shares operands. */
const DEFAULTS: Record<Sharing, Record<Size, string>> = {
  subgroup: {
    "8 rows": "subgroup 8x32",
    "16 rows": "subgroup 16x32",
    "8 columns": "subgroup 32x8",
    "16 columns": "subgroup 32x16",
    "128 columns": "subgroup 32x32",
    "128 rows": "subgroup 32x32",
    large: "subgroup 32x32",
    medium: "subgroup 32x32",
  },
  workgroup: {
    "8 rows": "workgroup 16x128 4x4",
    "16 rows": "workgroup 16x128 4x4",
    "8 columns": "workgroup 128x16 4x4",
    "16 columns": "workgroup 128x16 4x4",
    "128 columns": "workgroup 64x64 4x4",
    "128 rows": "workgroup 32x128 4x4",
    large: "workgroup 128x64 8x4",
    medium: "workgroup 128x64 8x4",
  },
};

/** Records a product by the variant for it. */
export function runProduct(gpu: Gpu, product: Product): void {
  const variant = variantOf(gpu, product);
  if ((product.mask || product.inner) && !variant.fuses) runApart(gpu, product, runProduct);
  else variant.run(gpu, product);
}

/** Whether products of a weight with so many rows write it as floats first. */
export function decodesFirst(
  gpu: Gpu,
  weight: QuantisedWeight,
  { rows, format }: { readonly rows: number; readonly format: Format },
): boolean {
  const [columns, depth] = weight.shape;
  const { form } = weight.operands()[0]!;
  return (["nt", "nn"] as const).every((layout) =>
    variantFor(gpu, { layout, form, format }, { rows, columns, depth }) === DEQUANTISE_FIRST
  );
}

/** Whether the variant for a product takes several like it as one. */
export function takesBlocks(gpu: Gpu, product: Product): boolean {
  return variantOf(gpu, product).fuses ?? false;
}

function variantOf(gpu: Gpu, product: Product): Variant {
  return variantFor(gpu, kindOf(product), product);
}

/**
 * The kind of a product. Where operand A is f32, it works in 16 bits if rows of x beside a gradient have them, or a weight and
 * the result: weights alone may have them where all else is f32.
 */
function kindOf({ layout, a, b, c }: Product): ProductKind {
  const isRounded = b.format !== undefined && (layout === "tn" || c.format !== "f32");
  return { layout, form: b.form, format: a.format === "f32" && isRounded ? b.format : a.format };
}

/** The variant for a product: the tuned one of its class, else the default. */
export function variantFor(gpu: Gpu, kind: ProductKind, shape: ProductShape): Variant {
  const size = sizeOf(shape);
  const variants = variantsOf(gpu, kind, size);
  const name = chosenVariant(gpu.tuning, tunableOf(gpu, kind, size, variants));
  return variants.find((variant) => variant.name === name)!;
}

/**
 * Every class of products with the variants that this device can run, the default first. Products of 16-bit operands
 * are classes of their own where the device has matrix units.
 */
export function matmulTunables(gpu: Gpu): readonly MatmulTunable[] {
  const formats = usesMatrices(gpu, { format: "bf16" }) ? ["f32", "bf16"] as const : ["f32"] as const;
  const kinds: ProductKind[] = formats.flatMap((format) =>
    FORMS.flatMap((form) => form.layouts.map((layout) => ({ layout, form, format })))
  );
  return kinds.flatMap((kind) =>
    SIZES.filter((size) => kind.form === DENSE || !size.endsWith("columns")).map((size) => ({
      ...tunableOf(gpu, kind, size, variantsOf(gpu, kind, size)),
      kind,
      shape: exampleOf(gpu, size),
    }))
  );
}

function tunableOf(gpu: Gpu, kind: ProductKind, size: Size, variants: readonly Variant[]): Tunable {
  const onMatrices = usesMatrices(gpu, kind);
  const [trusted, refused] = [true, false].map((wanted) =>
    variants.filter(({ risk }) => wanted !== (risk !== undefined && gpu.refused.has(risk))).map(({ name }) =>
      name
    )
  ) as [string[], string[]];
  const decodes = kind.form !== DENSE && !gpu.info.isSoftware && DEQUANTISED.has(size);
  const wanted = [
    ...decodes ? [DEQUANTISE_FIRST.name] : [],
    ...onMatrices && !gpu.info.isSoftware ? MATRIX_DEFAULTS[size] ?? [] : [],
    DEFAULTS[gpu.sharing][size],
    DEFAULTS.workgroup[size],
  ].find((name) => trusted.includes(name)) ?? trusted[0]!;
  const others = trusted.filter((name) => name !== wanted);
  const key = `matmul ${kind.layout} ${kind.form.name} ${size}${onMatrices ? " 16-bit" : ""}`;
  return { key, variants: [wanted, ...others], refused };
}

function variantsOf(gpu: Gpu, kind: ProductKind, size: Size): Variant[] {
  const tiles = gpu.sharing === "subgroup"
    ? [...BY_SUBGROUP, ...BY_WORKGROUP, ...BY_MATRIX]
    : [...BY_WORKGROUP, ...BY_SUBGROUP, ...BY_MATRIX];
  return [...tiles, DEQUANTISE_FIRST].filter(({ sizes, fits }) =>
    (sizes?.includes(size) ?? true) && fits(gpu, kind)
  );
}

function sizeOf({ rows, columns }: ProductShape): Size {
  if (rows <= 16) return rows <= 8 ? "8 rows" : "16 rows";
  if (columns <= 16) return columns <= 8 ? "8 columns" : "16 columns";
  if (columns <= 128) return "128 columns";
  if (rows <= 128) return "128 rows";
  return rows * columns >= LARGE ? "large" : "medium";
}

/** Sizes of real models where a GPU is; on the CPU small ones of the same class. */
function exampleOf(gpu: Gpu, size: Size): ProductShape {
  const [columns, depth] = gpu.info.isSoftware ? [2048, 256] : [4096, 4096];
  switch (size) {
    case "8 rows":
      return { rows: 8, columns, depth };
    case "16 rows":
      return { rows: 16, columns, depth };
    case "8 columns":
      return { rows: columns, columns: 8, depth };
    case "16 columns":
      return { rows: columns, columns: 16, depth };
    case "128 columns":
      return { rows: columns, columns: 64, depth };
    case "128 rows":
      return { rows: 128, columns, depth };
    case "large":
      return { rows: columns, columns, depth };
    case "medium":
      return { rows: 512, columns, depth };
  }
}
