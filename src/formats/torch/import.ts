/**
 * Import of PyTorch's files and of safetensors: a module of plain layers as it is, weights with an architecture or
 * recognised, a head out of a larger model. Nothing in a file is run; what a file would compute by code of its own is
 * refused by name, with the ways on.
 */
import type { Model } from "../../onnx/model.js";
import type { SymbolicShape } from "../../tensor/shape.js";
import { readSafetensors } from "../safetensors.js";
import { type Architecture, arrange, parseArchitecture, parseInputShape } from "./architecture.js";
import { assemble } from "./assemble.js";
import { findSubject, type State, type Subject, stateOfSubject } from "./checkpoint.js";
import { readTorchFile } from "./container.js";
import { layersOf } from "./module.js";
import { recognise } from "./recognise.js";

/** What the caller knows about a file. */
export interface TorchImportOptions {
  /** Take this part only: a dotted path of names in the file, such as `fc` or `model.classifier`. */
  readonly head?: string;
  /** The layers that the weights belong to; see `docs/pytorch.md`. */
  readonly architecture?: Architecture;
  /** The activation between the layers of a chain of weights, such as `relu`; `none` for none. */
  readonly hidden?: string;
  /** Shape of the input, the batch first; names for open sizes. By default what the layers tell. */
  readonly inputShape?: SymbolicShape;
  /** The shape of what the model shall read; it holds where the model can take it, and is no statement about it. */
  readonly inputLike?: SymbolicShape;
}

/** An imported model, and remarks on what was changed or assumed. */
export interface TorchImport {
  readonly model: Model;
  readonly notes: string[];
}

/**
 * Imports what `torch.save` wrote: a module, a state dict or a checkpoint that holds one, in the zip or the legacy
 * format. The model takes `input` and gives `output`, both float32, any number of rows.
 * @throws PolyheadError MODEL_UNSUPPORTED for calls, classes and layers that are not covered, by name, and where weights
 *   alone leave open what they compute; MODEL_MALFORMED; INVALID_ARGUMENT; NOT_FOUND for an unknown part; LIMIT_EXCEEDED
 */
export function importTorch(bytes: Uint8Array, options: TorchImportOptions = {}): TorchImport {
  const notes: string[] = [];
  return importSubject(findSubject(readTorchFile(bytes), options.head, notes), bytes.length, options, notes);
}

/**
 * Imports a safetensors file, which holds weights only, as {@link importTorch} does a state dict.
 * @throws PolyheadError as {@link importTorch}
 */
export function importSafetensors(bytes: Uint8Array, options: TorchImportOptions = {}): TorchImport {
  const notes: string[] = [];
  // Writers sort names as text, which would put layer 10 before layer 2.
  const tensors = [...readSafetensors(bytes)].sort(([a], [b]) => naturalOrder.compare(a, b));
  return importSubject(findSubject(new Map(tensors), options.head, notes), bytes.length, options, notes);
}

const naturalOrder = new Intl.Collator("en", { numeric: true });

function importSubject(
  subject: Subject,
  fileBytes: number,
  options: TorchImportOptions,
  notes: string[],
): TorchImport {
  const stated = options.inputShape && parseInputShape(options.inputShape);
  if (subject.kind === "module" && options.architecture === undefined) {
    const layers = layersOf(subject.module, subject.path, notes);
    const model = assemble(layers, { stated, like: options.inputLike, fileBytes }, notes);
    noteDtypes(stateOfSubject(subject), notes);
    return { model, notes };
  }
  const state = stateOfSubject(subject);
  const hidden = options.hidden;
  const source =
    options.architecture ??
    (subject.kind === "state"
      ? recognise(
          state,
          { hidden, whole: subject.whole, path: subject.path, modules: subject.modules },
          notes,
        )
      : []);
  const architecture = parseArchitecture(source);
  const { layers, checkSettings } = arrange(architecture, state, subject.path);
  const shapes = { stated: stated ?? architecture.input, like: options.inputLike, fileBytes };
  const model = assemble(layers, shapes, notes);
  checkSettings();
  noteDtypes(state, notes);
  return { model, notes };
}

function noteDtypes(state: State, notes: string[]): void {
  const others = new Set(
    [...state.values()].map(({ dtype }) => dtype).filter((dtype) => /^(b?float(16|64))$/.test(dtype)),
  );
  if (others.size > 0) notes.push(`Weights of ${[...others].join(" and ")} were written as float32.`);
}
