/** Targets of a loss that name classes, held against what the loss has classes for. */
import { PolyheadError } from "../base/errors.js";
import { type Tensor, toNumbers } from "../tensor/tensor.js";

/**
 * Whole numbers have to be classes. ONNX's OneHot would count those below 0 from the end and take others for no class
 * at all.
 * @param classes how many there are; undefined where the target is no class
 * @throws PolyheadError INPUT_MISMATCH
 */
export function requireClasses(target: Tensor, classes: number | undefined): void {
  if (classes === undefined) return;
  const wrong = toNumbers(target).find((each) => !(each >= 0 && each < classes));
  if (wrong === undefined) return;
  throw new PolyheadError(
    "INPUT_MISMATCH",
    `A target names class ${wrong}; the loss looks at ${classes} classes, expected 0 to ${classes - 1}.`,
    { got: wrong, expected: classes },
  );
}
