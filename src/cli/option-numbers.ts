/** Numbers among the options of verbs. What is none ends the command with a message of the command line's own kind. */
import { InvalidArgumentError } from "commander";

/** @throws InvalidArgumentError of the command line for anything but a number from 0 on */
export function readNumber(text: string): number {
  const value = Number(text);
  if (text.trim() !== "" && Number.isFinite(value) && value >= 0) return value;
  throw new InvalidArgumentError(`${JSON.stringify(text)} is no number of 0 or more.`);
}

/** @throws InvalidArgumentError of the command line for anything but a whole number from 1 on */
export function readCount(text: string): number {
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
  throw new InvalidArgumentError(`${JSON.stringify(text)} is no whole number of 1 or more.`);
}

/** @throws InvalidArgumentError of the command line for anything but whole numbers from 1 on, by commas */
export function readCounts(text: string): number[] {
  return text.split(",").map((each) => readCount(each.trim()));
}

/** @throws InvalidArgumentError of the command line for anything but a whole number from 0 on */
export function readWholeNumber(text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new InvalidArgumentError("Expected a whole number.");
}

/** @throws InvalidArgumentError of the command line for anything but a number above 0 */
export function readPositive(text: string): number {
  const value = Number(text);
  if (value > 0) return value;
  throw new InvalidArgumentError("Expected a number above 0, such as 5e8.");
}

/** @throws InvalidArgumentError of the command line for anything but a number from 0 to 1 */
export function readShare(text: string): number {
  const value = Number(text);
  if (text.trim() !== "" && value >= 0 && value <= 1) return value;
  throw new InvalidArgumentError("Expected a number from 0 to 1.");
}

/** @throws InvalidArgumentError of the command line for anything but a number from 0 to below 1: with 1 nothing would change */
export function readDecay(text: string): number {
  const value = Number(text);
  if (text.trim() !== "" && value >= 0 && value < 1) return value;
  throw new InvalidArgumentError("Expected a number from 0 to below 1, such as 0.99.");
}
