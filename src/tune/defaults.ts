/** What training more than a head begins with where nothing else is said. */

/** For a branch and for everything; a low rate, because the features are good already. */
export const TUNING = { epochs: 10, batch: 16, rate: 1e-4, patience: 3 } as const;
/** Share of the examples that is held back to judge by. */
export const HELD_BACK = 0.2;
/** Parts of a cross-validation. */
export const FOLDS = 5;
/** Width of a head's hidden layer. */
export const HIDDEN = 128;
