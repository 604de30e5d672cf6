/** The interpreter of pickles, by itself. */
import { unpickle } from "../../../checkpoint/pickle_vm.ts";
import { mutateBytes } from "../mutate.ts";
import { PICKLE_TOKENS, PICKLES } from "../pickles.ts";
import type { Reader } from "../reader.ts";

export const reader: Reader = {
  everyday: 3000,
  accepted: [0.01, 0.5],
  make: (dice) => mutateBytes(dice, dice.pick(PICKLES), PICKLE_TOKENS),
  read: (input) => unpickle(input, "x.bin"),
};
