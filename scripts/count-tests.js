// Prints `N passed, N failed, N skipped` from a JSON report of vitest; a file whose tests could not even be
// collected counts as one failure. Exits 1 when something failed or there is no report.
// Usage: node scripts/count-tests.js REPORT
import { readFileSync } from "node:fs";

const { passed, failed, skipped } = count(process.argv[2] ?? "");
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;

/**
 * @typedef {{ status: string }} Outcome
 * @typedef {{ testResults: (Outcome & { assertionResults: Outcome[] })[], numPassedTests: number,
 *   numFailedTests: number, numPendingTests: number, numTodoTests: number }} Report
 */

function count(/** @type {string} */ path) {
  try {
    const report = /** @type {Report} */ (JSON.parse(readFileSync(path, "utf8")));
    const broken = report.testResults.filter(
      ({ status, assertionResults }) =>
        status === "failed" && !assertionResults.some((test) => test.status === "failed"),
    );
    return {
      passed: report.numPassedTests,
      failed: report.numFailedTests + broken.length,
      skipped: report.numPendingTests + report.numTodoTests,
    };
  } catch (error) {
    console.error(`no test report: ${error instanceof Error ? error.message : error}`);
    return { passed: 0, failed: 1, skipped: 0 };
  }
}
