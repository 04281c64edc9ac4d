// Swagger UI from BentoML, without the tracking script that BentoML's own page loads.
SwaggerUIBundle({ url: "openapi.json", dom_id: "#swagger-ui" });
