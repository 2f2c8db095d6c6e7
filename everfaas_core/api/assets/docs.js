"use strict";
// Shows the document of this very server; nothing is fetched from or sent to anywhere else.
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  validatorUrl: null,
  defaultModelsExpandDepth: 0,
});
