/* Builds every page in one process, so that NOTICE knows the libraries of all of them. */
import { build } from 'vite';

for (const mode of ['report', 'training', 'debugger']) await build({ mode });
