// Asks the browser for a passkey, puts its answer into the form and sends that. WebAuthn Level 3's JSON methods do all the encoding.
"use strict";

const credentialFor = {
  create: (options) =>
    navigator.credentials.create({
      publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(options),
    }),
  get: (options) =>
    navigator.credentials.get({
      publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options),
    }),
};

for (const form of document.querySelectorAll("form[data-passkey]")) {
  const failed = form.parentElement.querySelector("[data-passkey-failed]");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    failed.hidden = true;
    try {
      const options = JSON.parse(form.dataset.options);
      const credential = await credentialFor[form.dataset.passkey](options);
      form.elements.credential.value = JSON.stringify(credential.toJSON());
      HTMLFormElement.prototype.submit.call(form); // sends it without another submit event
    } catch {
      failed.hidden = false; // refused by its owner, timed out or unknown: a browser does not say which
    }
  });
}
