// Runs a TypeScript module in a Node process of its own: node run-ts.mjs <module> [arguments].
import { createViteServer } from "vitest/node";

const server = await createViteServer({
  appType: "custom",
  configFile: false,
  logLevel: "error",
  optimizeDeps: { noDiscovery: true },
  oxc: { target: "node20" },
  server: { middlewareMode: true, watch: null, hmr: false, ws: false },
});
await server.ssrLoadModule(process.argv[2]);
await server.close();
