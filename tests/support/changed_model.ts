import { fromF32, toF32 } from "../../checkpoint/dtype.ts";
import { writeModel } from "../../checkpoint/save_model.ts";
import { openWeights } from "../../checkpoint/weights.ts";

/** Makes the folder `to` with a model like that of `from`, whose tensor `name` went through `change`; all in F32. */
export async function writeChangedModel(
  from: string,
  to: string,
  name: string,
  change: (values: Float32Array) => void,
): Promise<void> {
  await Deno.mkdir(to);
  const weights = await openWeights(from);
  const tensors = [...weights.names()].map((tensor) => ({
    name: tensor,
    dtype: "F32" as const,
    shape: weights.info(tensor).shape,
    read: async () => {
      const values = toF32(await weights.read(tensor), weights.info(tensor).dtype);
      if (tensor === name) change(values);
      return fromF32(values, "F32");
    },
  }));
  await writeModel(to, { config: JSON.parse(await Deno.readTextFile(`${from}/config.json`)), tensors });
  weights.close();
}
