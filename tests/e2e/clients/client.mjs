// The JavaScript client: creates, patches, applies, watches, deletes; and runs a command in a pod that is named.
//
// Usage: node client.mjs FOLDER_OF_THE_CLIENT KUBECONFIG [NAMESPACE POD]. Ends with 0 and the word `fine` where everything
// was as it must be.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { PassThrough } from 'node:stream';
import { pathToFileURL } from 'node:url';

const [folder, kubeconfig, namespace, pod] = process.argv.slice(2);
const entry = createRequire(`${folder}/package.json`).resolve('@kubernetes/client-node');
const k8s = await import(pathToFileURL(entry).href);
const config = new k8s.KubeConfig();
config.loadFromFile(kubeconfig);
const core = config.makeApiClient(k8s.CoreV1Api);
const name = 'from-javascript';

// Everything that a watch sees of the object until it is gone.
async function changes() {
    const list = await core.listNamespacedConfigMap({ namespace: 'default' });
    const query = { resourceVersion: list.metadata.resourceVersion };
    const seen = [];
    let request;
    const done = new Promise((resolve, reject) => {
        const look = (type, object) => {
            if (object.metadata.name !== name) return;
            seen.push([type, object.data?.color]);
            if (type === 'DELETED') resolve(seen);
        };
        const end = (error) => (error && error.name !== 'AbortError' ? reject(error) : resolve(seen));
        request = new k8s.Watch(config).watch('/api/v1/namespaces/default/configmaps', query, look, end);
        request.catch(reject);
    });
    return { done, stop: async () => (await request).abort() };
}

async function objects() {
    const watch = await changes();
    const body = { metadata: { name }, data: { color: 'blue' } };
    const created = await core.createNamespacedConfigMap({ namespace: 'default', body });
    assert.ok(created.metadata.uid);
    const merge = k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.MergePatch);
    const green = { data: { color: 'green' } };
    const patched = await core.patchNamespacedConfigMap({ name, namespace: 'default', body: green }, merge);
    assert.deepEqual(patched.data, green.data);
    const apply = k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.ServerSideApply);
    const red = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name }, data: { color: 'red' } };
    const wanted = { name, namespace: 'default', body: red, fieldManager: 'javascript', force: true };
    const applied = await core.patchNamespacedConfigMap(wanted, apply);
    assert.deepEqual(applied.data, red.data);
    await assert.rejects(core.createNamespacedConfigMap({ namespace: 'default', body }), { code: 409 });
    await core.deleteNamespacedConfigMap({ name, namespace: 'default' });
    const expected = [['ADDED', 'blue'], ['MODIFIED', 'green'], ['MODIFIED', 'red'], ['DELETED', 'red']];
    assert.deepEqual(await watch.done, expected);
    await watch.stop();
}

async function command() {
    const output = new PassThrough();
    const chunks = [];
    output.on('data', (chunk) => chunks.push(chunk));
    const status = await new Promise((resolve, reject) => {
        const exec = new k8s.Exec(config);
        exec.exec(namespace, pod, '', ['sh', '-c', 'echo hello'], output, null, null, false, resolve).catch(reject);
    });
    assert.equal(status.status, 'Success');
    assert.equal(Buffer.concat(chunks).toString(), 'hello\n');
}

await objects();
if (pod) await command();
console.log('fine');
