/**
 * How the tests run. Each file has its own process, because ONNX Runtime's native module is not safe in
 * several worker threads of one; two at a time, because each brings its own threads.
 */
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts", "src/**/*.test.ts"],
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
