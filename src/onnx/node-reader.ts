/** A node whose attributes and inputs are asked for by name and place: the base of what rules see of nodes. */
import {
  findAttribute,
  floatAttribute,
  intAttribute,
  intsAttribute,
  type Node,
  stringAttribute,
} from "./model.js";

/** Reads a node. Attributes that are not there have the fallback, or are undefined. */
export class NodeReader {
  readonly node: Node;

  constructor(node: Node) {
    this.node = node;
  }

  /** Whether the node has this input. */
  has(place: number): boolean {
    return (this.node.input[place] ?? "") !== "";
  }

  /** Whether the node has the attribute. */
  hasAttribute(name: string): boolean {
    return findAttribute(this.node, name) !== undefined;
  }

  /** An INT attribute. */
  int(name: string, fallback: number): number {
    return intAttribute(this.node, name, fallback);
  }

  /** An INTS attribute. */
  ints(name: string): number[] | undefined {
    return intsAttribute(this.node, name);
  }

  /** A FLOAT attribute. */
  float(name: string, fallback: number): number {
    return floatAttribute(this.node, name, fallback);
  }

  /** A STRING attribute. */
  text(name: string, fallback: string): string {
    return stringAttribute(this.node, name, fallback);
  }
}
